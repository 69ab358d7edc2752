"""The validator that catalog entries name. Expectations are in conf/; a function computes the table that they are about."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.validation.exceptions import CheckFailure, DataValidationError

from fourfold_ops.loading import load_object
from fourfold_ops.tracking.run import active_run

logger = logging.getLogger(__name__)
SEVERITIES = ("critical", "warning", "info")


class GreatExpectations:
    """Checks a table of facts about a data set against expectations.

    In the catalog:

        validator:
          class: fourfold_ops.quality.GreatExpectations
          on: [save]
          options:
            suite: shards                        # name in the data docs
            path: data/quality                   # folder of results and data docs
            table: fourfold.data.facts.fact_table  # called with the data and `arguments`; rows as dictionaries, or a DataFrame
            arguments: {splits: [train]}
            key: key                             # the column that identifies a row in messages
            expectations:
              - {type: expect_column_values_to_be_unique, column: key}
              - {type: expect_column_values_to_be_between, column: width, min_value: 64, severity: warning}

    A failed expectation of severity `critical` (the default) stops the run; `warning` and `info` are logged. An empty table is
    a critical failure: every expectation about values would hold.
    """

    def __init__(
        self,
        suite: str,
        path: str,
        table: str,
        expectations: list[dict[str, Any]],
        arguments: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        for expectation in expectations:
            if expectation.get("severity", "critical") not in SEVERITIES:
                raise ValueError(
                    f"Suite {suite!r} has severity {expectation['severity']!r}; allowed are {', '.join(SEVERITIES)}."
                )
            if not str(expectation.get("type", "")).startswith("expect_"):
                raise ValueError(f"An expectation of suite {suite!r} has no `type: expect_...`: {expectation}.")
        self.suite, self.expectations, self.key = suite, expectations, key
        self._path, self._table, self._arguments = Path(path), table, arguments or {}

    def validate(self, data: Any) -> Any:
        """Return `data` unchanged.

        Raises:
            ExpectationError: Critical expectations failed; the message names each, with examples.
        """
        from fourfold_ops.quality.suite import run_suite  # imports Great Expectations: seconds

        rows = load_object(self._table)(data, **self._arguments)
        outcomes = run_suite(self.suite, rows, self.expectations, self.key, self._path)
        failed = [outcome for outcome in outcomes if not outcome["success"]]
        self._record(outcomes, failed)
        critical = [outcome for outcome in failed if outcome["severity"] == "critical"]
        for outcome in failed:
            if outcome not in critical:
                logger.warning("%s: %s", self.suite, describe(outcome))
        if critical:
            raise self._error(critical)
        logger.info("%s: %d rows meet %d expectations.", self.suite, len(rows), len(outcomes) - len(failed))
        return data

    def _record(self, outcomes: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
        run = active_run()
        run.set_tag("quality.data_docs", str(docs_index(self._path)))
        run.log_metrics({f"quality/{self.suite}/expectations": len(outcomes), f"quality/{self.suite}/failed": len(failed)})
        run.log_json(
            {"suite": self.suite, "data_docs": str(docs_index(self._path)), "outcomes": outcomes}, f"quality/{self.suite}.json"
        )

    def _error(self, critical: list[dict[str, Any]]) -> DataValidationError:
        failures = [
            CheckFailure(
                describe(o), check=o["type"], column=o["column"], failure_count=o["count"] or 1, failure_examples=o["examples"]
            )
            for o in critical
        ]
        return ExpectationError(self.suite, critical, failures, docs_index(self._path))


class ExpectationError(DataValidationError):
    """Critical expectations failed. The message is one line: which, in how many rows, examples, and where all results are."""

    def __init__(self, suite: str, critical: list[dict[str, Any]], failures: list[CheckFailure], docs: Path) -> None:
        problems = "; ".join(describe(outcome) for outcome in critical)
        super().__init__(f"Suite {suite!r}: {problems}.", failures=failures)
        self.remedy = f"All results: {os.path.relpath(docs)}. Correct the data or the expectation in the catalog."

    def __str__(self) -> str:
        prefix = f"Dataset {self.dataset_name!r} does not meet its expectations. " if self.dataset_name else ""
        return f"{prefix}{self.message}"


def describe(outcome: dict[str, Any]) -> str:
    """Return one failed expectation as text."""
    text = outcome["type"] + (f" on {outcome['column']!r}" if outcome["column"] else "")
    if outcome["error"]:
        return f"{text} could not be checked: {outcome['error']}"
    limits = ", ".join(f"{k}={v!r}" for k, v in outcome["limits"].items())
    text += f" ({limits})" if limits else ""
    if outcome["count"] is None:
        return f"{text} found {outcome['observed']!r}"
    return f"{text} fails in {outcome['count']} of {outcome['rows']} rows, e.g. {', '.join(map(str, outcome['examples']))}"


def docs_index(path: Path) -> Path:
    """Return the index page of the data docs in a folder of results."""
    return path / "gx" / "uncommitted" / "data_docs" / "local_site" / "index.html"


def metric_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a table of metrics such as `{"depth/abs_rel": 0.05}`: columns name, group (`depth`), metric, value."""
    rows = []
    for name, value in metrics.items():
        group, _, metric = name.rpartition("/")
        rows.append({"name": name, "group": group, "metric": metric, "value": float(value)})
    return rows
