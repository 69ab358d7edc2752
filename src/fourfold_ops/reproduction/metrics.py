"""Compares every number of the metrics files with its record."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold_ops.reproduction.lock import Lock
from fourfold_ops.reproduction.objects import Objects
from fourfold_ops.versioning.hashes import FOLDER

Tolerance = Callable[[str, float, dict[str, Any]], float]  # (name, recorded value, all recorded values) → largest difference


@dataclass(frozen=True)
class MetricResult:
    """One value of a metrics file; `difference` is found minus recorded, None if one of them is no number."""

    name: str
    recorded: Any
    found: Any
    difference: float | None
    tolerance: float
    holds: bool


def exact(name: str, recorded: float, values: dict[str, Any]) -> float:
    """Return the tolerance on the same kind of machine: none."""
    return 0.0


def compare_metrics(recorded: dict[str, Any], found: dict[str, Any], tolerance: Tolerance = exact) -> list[MetricResult]:
    """Compare two flat tables of metrics, in the order of the recorded one.

    Args:
        recorded: Values by dotted name.
        found: The same of the reproduction.
        tolerance: Gives the largest accepted difference of a value.
    """
    names = [*recorded, *(name for name in found if name not in recorded)]
    return [_compared(name, recorded, found, tolerance) for name in names]


def _compared(name: str, recorded: dict[str, Any], found: dict[str, Any], tolerance: Tolerance) -> MetricResult:
    old, new = recorded.get(name, "absent"), found.get(name, "absent")
    if not (_is_number(old) and _is_number(new)):
        return MetricResult(name, old, new, None, 0.0, old == new)
    if old == new or (math.isnan(old) and math.isnan(new)):
        return MetricResult(name, old, new, 0.0, tolerance(name, old, recorded), True)
    difference, allowed = new - old, tolerance(name, old, recorded)
    return MetricResult(name, old, new, difference, allowed, abs(difference) <= allowed)


def recorded_metrics(files: Iterable[str], lock: Lock, objects: Objects) -> dict[str, Any]:
    """Return the values of metrics files as the lock has them; those in neither cache nor remote are left out."""
    found: dict[str, Any] = {}
    for path in files:
        md5 = _md5_of(path, lock, objects)
        if md5 is None:
            continue
        with objects.open(md5) as file:
            if file is not None:
                found |= flat(_json(file.read()))
    return found


def found_metrics(files: Iterable[str], root: Path) -> dict[str, Any]:
    """Return the values of metrics files below a project folder."""
    found: dict[str, Any] = {}
    for path in files:
        if (root / path).is_file():
            found |= flat(_json((root / path).read_bytes()))
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables and lists as one table with dotted names."""
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list):
        items = list(enumerate(values))
    else:
        return {prefix: values} if prefix else {}
    parts = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in items]
    return {name: value for part in parts for name, value in part.items()}


def _md5_of(path: str, lock: Lock, objects: Objects) -> str | None:
    made = lock.producer(path)
    if made is None:
        return None
    out = made[1]
    if not out.md5.endswith(FOLDER):
        return out.md5
    return (objects.listing(out.md5) or {}).get(path.removeprefix(f"{out.path}/"))


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:  # reported as a changed file
        return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
