"""Tables of common values, for `table:` of a validator."""

from collections.abc import Mapping
from typing import Any


def metric_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each figure of `{"depth/abs_rel": 0.05}`: name, group (`depth`), metric, value."""
    rows = []
    for name, value in metrics.items():
        group, _, metric = name.rpartition("/")
        rows.append({"name": name, "group": group, "metric": metric, "value": float(value)})
    return rows
