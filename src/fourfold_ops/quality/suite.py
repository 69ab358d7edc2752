"""Checks one table against one suite of Great Expectations. Importing it takes seconds: import this module where it is used."""

import json
import os
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package loads

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from fourfold_ops.errors import UserError
from fourfold_ops.suggestions import did_you_mean

MAX_EXAMPLES = 5  # of the rows that fail, in messages


def run_suite(name: str, rows: Any, expectations: list[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    """Check a table and return one outcome per expectation.

    Args:
        name: Name of the suite.
        rows: The table: a DataFrame or a list of dictionaries.
        expectations: Type and arguments of each expectation, as in the catalog.
        key: The column that identifies a row in messages.

    Returns:
        Dictionaries with type, column, limits, severity, success, count (of failing rows), rows, examples, observed, error.

    Raises:
        UserError: Great Expectations has no expectation of this name.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if table.empty:
        return [_outcome("expect_table_row_count_to_be_between", {"min_value": 1}, "critical", observed=0)]
    context = _new_context()
    suite = gx.ExpectationSuite(name=name, expectations=[_expectation(expectation) for expectation in expectations])
    batch = context.data_sources.add_pandas("catalog").add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    result_format: Any = {"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES}
    if key is not None and key in table:
        result_format["unexpected_index_column_names"] = [key]
    definitions = [context.validation_definitions.add(definition)]
    checkpoint = gx.Checkpoint(name=name, validation_definitions=definitions, result_format=result_format)
    (run,) = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table}).run_results.values()
    return [_read(json.loads(json.dumps(item.to_json_dict())), len(table), key) for item in run.results]


def _new_context() -> Any:
    """Return a context that keeps everything in memory, and writes no data docs: these load scripts from other servers."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={},
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _expectation(settings: dict[str, Any]) -> Any:
    arguments = {k: v for k, v in settings.items() if k != "type"}
    known = list_registered_expectation_implementations()
    if settings["type"] not in known:
        hint = did_you_mean(settings["type"], known, count=3)
        raise UserError(f"Unknown expectation {settings['type']!r}.{hint}", "See greatexpectations.io/expectations.")
    return get_expectation_impl(settings["type"])(**{"severity": "critical", **arguments})


def _read(item: dict[str, Any], rows: int, key: str | None) -> dict[str, Any]:
    config, result = item["expectation_config"], item.get("result") or {}
    error = next((str(e["exception_message"]) for e in _exceptions(item) if e.get("raised_exception")), "")
    examples = result.get("partial_unexpected_list", [])
    positions = result.get("partial_unexpected_index_list")
    if key is not None and positions and config["kwargs"].get("column") != key:
        examples = [f"{position[key]}: {value}" for position, value in zip(positions, examples, strict=False)]
    return _outcome(
        config["type"],
        {k: v for k, v in config["kwargs"].items() if k not in ("batch_id", "severity")},
        config.get("severity", "critical"),
        success=item["success"],
        count=None if error else result.get("unexpected_count"),
        rows=rows,
        examples=examples[:MAX_EXAMPLES],
        observed=result.get("observed_value"),
        error=error,
    )


def _outcome(type_: str, arguments: dict[str, Any], severity: str, success: bool = False, **more: Any) -> dict[str, Any]:
    column = arguments.get("column")
    limits = {k: v for k, v in arguments.items() if k != "column"}
    empty: dict[str, Any] = {"count": None, "rows": 0, "examples": [], "observed": None, "error": ""}
    return {"type": type_, "column": column, "limits": limits, "severity": severity, "success": success, **empty, **more}


def _exceptions(item: dict[str, Any]) -> list[dict[str, Any]]:
    info = item.get("exception_info") or {}
    return [info] if "raised_exception" in info else [e for e in info.values() if isinstance(e, dict)]
