"""What changed since a stage was made: parameters with both values, modules, inputs, files."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Change:
    """One reason for a stage to run.

    Attributes:
        kind: "missing", "unknown", "replaced", "parameter", "code", "package", "damage", "input", "outside" or "stage".
        name: Key of a parameter, module, path, or the stage that runs before.
        old: What it was, as text.
        new: What it is now.
    """

    kind: str
    name: str
    old: str = ""
    new: str = ""

    @property
    def text(self) -> str:
        """A phrase, e.g. "parameter seed: 0 → 1"."""
        return {
            "missing": f"{self.name} does not exist",
            "unknown": "what it was made from is not recorded",
            "replaced": f"{self.name} was written since by a run that did not complete, or restored",
            "parameter": f"parameter {self.name}: {self.old} → {self.new}",
            "code": f"module {self.name} {self.new}",
            "package": f"{self.name} is not as in dvc.lock",
            "damage": self.new,
            "input": f"{self.name} is another one ({self.old or 'unknown'} → {self.new})",
            "outside": f"{self.name} changed",
            "stage": f"{self.name} runs before",
        }[self.kind]


def parameter_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the leaves that differ between two nested tables, with both values as JSON."""
    before, after = flat_leaves(old), flat_leaves(new)
    changed = sorted(key for key in {*before, *after} if (key in before, before.get(key)) != (key in after, after.get(key)))
    return [Change("parameter", key, _shown(before, key), _shown(after, key)) for key in changed]


def code_changes(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """Return the recorded modules whose digest is another one now, or that no longer exist."""
    differing = sorted(name for name in recorded if recorded[name] != now.get(name))
    return [Change("code", name, recorded[name], "changed" if name in now else "removed") for name in differing]


def counts_for(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a parameter is among the settings of a claimed folder, which may leave out its first sections.

    `pretraining.model.dim` is in `{"config": {"model": {"dim": 128}}}`, and so are `pretraining.model` and `seed` in
    `{"seed": 0}`.
    """
    words = key.split(".")
    wanted = words[1:] or words
    for path in (leaf.split(".") for leaf in flat_leaves(settings)):
        if any(_is_start(wanted, one) or _is_start(one, wanted) for one in (path, path[1:]) if one):
            return True
        if path[1:] and path[1:] == wanted[1:]:
            return True
    return False


def flat_leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one with dotted keys; lists and empty tables are leaves."""
    if not isinstance(values, Mapping) or (not values and prefix):
        return {prefix: values}
    return {key: leaf for k, v in values.items() for key, leaf in flat_leaves(v, f"{prefix}.{k}" if prefix else str(k)).items()}


def phrases_of(changes: Iterable[Change]) -> list[str]:
    """Return one phrase for each change, and one for all stages that run before."""
    changes = list(changes)
    before = [change.name for change in changes if change.kind == "stage"]
    verb = "runs" if len(before) == 1 else "run"
    phrases = [change.text for change in changes if change.kind != "stage"]
    return [*phrases, *([f"{', '.join(before)} {verb} before"] if before else [])]


def summary(changes: Iterable[Change], limit: int) -> str:
    """Return the first phrases and the number of the others."""
    phrases = phrases_of(changes)
    rest = f" and {len(phrases) - limit} more" if len(phrases) > limit else ""
    return "; ".join(phrases[:limit]) + rest


def _is_start(start: list[str], path: list[str]) -> bool:
    return path[: len(start)] == start


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "unset"
    text = json.dumps(values[key], ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
