"""The validator that catalog entries name. Expectations are in conf/; a function computes the table that they are about."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.validation.exceptions import CheckFailure, DataValidationError

from fourfold_ops.loading import load_object
from fourfold_ops.quality.checked import digest_of_check, known_outcomes
from fourfold_ops.quality.page import quality_page
from fourfold_ops.quality.record import index, write_record
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
            suite: shards                        # its page is PATH/shards.html
            path: data/quality                   # folder of results and pages; index.html lists all suites
            # called with the data and `arguments`; returns rows as dictionaries, a DataFrame, or an Arrow table
            table: my_library.facts.fact_table
            arguments: {splits: [train]}
            key: key                             # the column that identifies a row in messages
            expectations:
              - {type: expect_column_values_to_be_unique, column: key}
              - {type: expect_column_values_to_be_between, column: width, min_value: 64, severity: warning}
            also:                                # further suites about other tables of the same data, with the same options
              - suite: all_shards
                table: my_library.facts.shard_table
                expectations: [...]

    Great Expectations needs kilobytes for each row: of large data, one table can have totals of all parts and another one a
    selection of rows.

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
        also: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        for expectation in expectations:
            if expectation.get("severity", "critical") not in SEVERITIES:
                raise ValueError(
                    f"Suite {suite!r} has severity {expectation['severity']!r}; allowed are {', '.join(SEVERITIES)}."
                )
            if not str(expectation.get("type", "")).startswith("expect_"):
                raise ValueError(f"An expectation of suite {suite!r} has no `type: expect_...`: {expectation}. Add it.")
        self.suite, self.expectations, self.key = suite, expectations, key
        self._path, self._table, self._arguments = Path(path), table, arguments or {}
        self._also = [GreatExpectations(**{"path": path, **one}) for one in also]

    def validate(self, data: Any) -> Any:
        """Return `data` unchanged.

        Raises:
            ExpectationError: Critical expectations failed, of any suite; the message names each, with examples.
        """
        critical = {one.suite: found for one in (self, *self._also) if (found := one._critical_failures(data))}
        if critical:
            raise ExpectationError(critical, index(self._path))
        return data

    def _critical_failures(self, data: Any) -> list[dict[str, Any]]:
        """Check one table, record and log the outcomes, and return those that stop a run."""
        rows = load_object(self._table)(data, **self._arguments)
        rows = rows.to_pandas() if hasattr(rows, "to_pandas") else rows  # an Arrow table
        digest = digest_of_check(rows, self.expectations, self.key)
        known = known_outcomes(self._path, self.suite, digest)
        outcomes = self._check(rows) if known is None else known
        write_record(self._path, self.suite, digest, outcomes, len(rows))
        failed = [outcome for outcome in outcomes if not outcome["success"]]
        self._record(outcomes, failed, len(rows))
        critical = [outcome for outcome in failed if outcome["severity"] == "critical"]
        for outcome in failed:
            if outcome not in critical:
                logger.warning("%s: %s", self.suite, describe(outcome))
        if not critical:
            earlier = "" if known is None else " (checked before)"
            logger.info("%s: %d rows meet %d expectations%s.", self.suite, len(rows), len(outcomes) - len(failed), earlier)
        return critical

    def _check(self, rows: Any) -> list[dict[str, Any]]:
        from fourfold_ops.quality.suite import run_suite  # imports Great Expectations: seconds

        return run_suite(self.suite, rows, self.expectations, self.key)

    def _record(self, outcomes: list[dict[str, Any]], failed: list[dict[str, Any]], num_rows: int) -> None:
        run = active_run()
        run.log_bytes(quality_page(self.suite, outcomes, num_rows).encode(), f"quality/{self.suite}.html")
        run.log_metrics({f"quality/{self.suite}/expectations": len(outcomes), f"quality/{self.suite}/failed": len(failed)})
        run.log_json({"suite": self.suite, "rows": num_rows, "outcomes": outcomes}, f"quality/{self.suite}.json")


class ExpectationError(DataValidationError):
    """Critical expectations failed. The message is one line: which, in how many rows, examples, and where all results are.

    Args:
        critical: The failed outcomes by suite.
        docs: The page that lists all suites.
    """

    def __init__(self, critical: Mapping[str, list[dict[str, Any]]], docs: Path) -> None:
        failures = [
            CheckFailure(
                describe(o), check=o["type"], column=o["column"], failure_count=o["count"] or 1, failure_examples=o["examples"]
            )
            for outcomes in critical.values()
            for o in outcomes
        ]
        problems = (f"Suite {suite!r}: {'; '.join(map(describe, outcomes))}." for suite, outcomes in critical.items())
        super().__init__(" ".join(problems), failures=failures)
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


def metric_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a table of metrics such as `{"depth/abs_rel": 0.05}`: columns name, group (`depth`), metric, value.

    Values that are not numbers, such as the digests of what was measured, have no row.
    """
    rows = []
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            continue
        group, _, metric = name.rpartition("/")
        rows.append({"name": name, "group": group, "metric": metric, "value": float(value)})
    return rows
