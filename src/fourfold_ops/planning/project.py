"""What the planner asks a project: which folders are claimed by a fingerprint, and what code a stage can reach."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Claim:
    """A folder of results that belongs to one fingerprint.

    Attributes:
        digest: Digest of the fingerprint.
        parameters: The settings that count for this folder.
        inputs: Digests of the data that it was made from, by name.
        modules: Digest of every module that it was made with, by dotted name.
        is_kept: Whether other content is kept aside; what takes seconds to make is deleted.
    """

    digest: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    modules: Mapping[str, str]
    is_kept: bool = True


@dataclass(frozen=True)
class Storage:
    """What the results of the configured data take on disk, whatever `data/` holds now.

    Attributes:
        lines: A table for people.
        needed: Bytes on the disk of the project, with copies; those in a bucket are not among them.
        stages: The stages that write these results.
        advice: A sentence on how they would be smaller; may be empty.
        values: The table as JSON values.
    """

    lines: tuple[str, ...]
    needed: int
    stages: tuple[str, ...]
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


class PlannedProject(Protocol):
    """Answers of a project. None of them may import a library that takes seconds, except `stage_code`."""

    def claims(self, folder: Path) -> dict[Path, Claim]:
        """Return the claimed folders at or below a folder; a project without fingerprints has none."""
        ...

    def code(self, modules: Iterable[str]) -> dict[str, str]:
        """Return the digest of each module as it is now; a module that does not exist is left out."""
        ...

    def stage_code(
        self, stages: Mapping[str, set[str]], catalog: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> dict[str, dict[str, str]]:
        """Return, by stage, the digest of every module that it can reach; called in a run, whose libraries are loaded.

        Args:
            stages: The names of the data sets of each stage.
            catalog: The configuration of the catalog.
            parameters: All parameters.
        """
        ...

    def damage(self, file: Path) -> str:
        """Describe how a file of results differs from its recorded digest; "" if it does not, or has none."""
        ...

    def outside(self, parameters: Mapping[str, Any]) -> dict[str, str | None]:
        """Return the path or URL of what a run reads from outside, by its name in dvc.yaml; None for nothing."""
        ...

    def check(self, stages: Iterable[str], parameters: Mapping[str, Any]) -> None:
        """Raise ValueError if a path that these stages read does not exist."""
        ...

    def storage(self, root: Path, parameters: Mapping[str, Any], catalog: Mapping[str, Any]) -> Storage | None:
        """Return what the results of the configured data take on disk; None if that cannot be told.

        Args:
            root: The project.
            parameters: All parameters.
            catalog: The configuration of the catalog, which may name another place for large results.
        """
        ...
