"""Differences of the environment: installed packages against a requirements.lock, and facts about machines."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.markers import Marker
from packaging.utils import canonicalize_name

REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\#]+)(?:\s*;\s*([^\\#]+))?")
NOT_INSTALLED = "not installed"
# What last bits depend on; other facts (host name, memory) do not matter. Names of tags without the prefix `compute.`
DECISIVE = ("precision", "instruction_set", "num_threads", "torch", "device", "machine", "cpu", "python")


@dataclass(frozen=True)
class EnvironmentChange:
    """A package or a fact that is not as it was."""

    kind: str  # "package", "requirements.lock" or "machine"
    name: str
    recorded: str
    found: str


def package_changes(requirements: str, kind: str = "package") -> list[EnvironmentChange]:
    """Return the packages that a pinned requirements file names and that are installed in another version, or not at all.

    Args:
        requirements: The text of the file; entries whose marker excludes this platform do not count.
        kind: The kind of the changes.
    """
    return [
        EnvironmentChange(kind, name, wanted, found)
        for name, wanted in sorted(pinned(requirements).items())
        if (found := installed_version(name)) != wanted and found.partition("+")[0] != wanted
    ]


def changes(requirements: str, packages: str) -> list[EnvironmentChange]:
    """Return the packages that differ from those that a run had, and from a requirements file; each once.

    Args:
        requirements: The text of requirements.lock; "" without one.
        packages: The packages that the run had, as lines name==version; "" if unknown.
    """
    had = package_changes(packages, "package")
    locked = package_changes(requirements, "requirements.lock")
    known = {(change.name, change.recorded) for change in had}
    return [*had, *(change for change in locked if (change.name, change.recorded) not in known)]


def pinned(requirements: str) -> dict[str, str]:
    """Return the versions that a requirements file pins for this platform, by canonical name."""
    found: dict[str, str] = {}
    for line in requirements.splitlines():
        match = REQUIREMENT.match(line.strip())
        if match and (not match[3] or Marker(match[3].strip()).evaluate({"extra": ""})):
            found[canonicalize_name(match[1])] = match[2]
    return found


def installed_version(name: str) -> str:
    """Return the version of an installed distribution, or NOT_INSTALLED."""
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED


def fact_changes(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[EnvironmentChange]:
    """Return the facts about the machine that differ, of those that both sides have."""
    names = [name for name in recorded if name in found and name.rpartition(".")[2] in DECISIVE]
    return [EnvironmentChange("machine", name, recorded[name], found[name]) for name in names if recorded[name] != found[name]]


def decides_bits(changes: Iterable[EnvironmentChange]) -> bool:
    """Return whether other last bits are to be expected: the machine or its use differs, not only a package."""
    return any(change.kind == "machine" for change in changes)
