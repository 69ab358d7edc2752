"""Metrics of a run: every number of a nested table under one name, the same in all runs and models."""

from typing import Any

from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import metric_name

LEFT_OUT = "left_out"  # key of a table of metrics: sentences about what it lacks


def leaves(table: Any, prefix: str = "") -> dict[str, float]:
    """Return every number of nested dictionaries and lists by its path: `{"a": {"b": [1, 2]}}` → `{"a/b/0": 1, "a/b/1": 2}`.

    Texts and empty values have no number. Names are those that MLflow accepts (`rgb->depth` → `rgb_to_depth`).

    Raises:
        ValueError: Two paths have the same name in MLflow.
    """
    found: dict[str, float] = {}
    for path, value in _numbers(table, prefix):
        name = metric_name(path)
        if name in found:
            raise ValueError(f"Two metrics are called {name!r} in MLflow; one is {path!r}. Rename one of them.")
        found[name] = value
    return found


def results_tags(table: Any) -> dict[str, str]:
    """Return tags that say whether a table of metrics is whole, by the sentences about what it lacks."""
    left_out = table.get(LEFT_OUT) if isinstance(table, dict) else None
    scope = {names.RESULTS_SCOPE: names.PARTIAL if left_out else names.WHOLE}
    return scope | ({names.RESULTS_LEFT_OUT: " ".join(map(str, left_out))} if left_out else {})


def _numbers(value: Any, path: str) -> list[tuple[str, float]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [pair for key, item in items for pair in _numbers(item, f"{path}/{key}" if path else str(key))]
    return [(path, float(value))] if isinstance(value, int | float) else []
