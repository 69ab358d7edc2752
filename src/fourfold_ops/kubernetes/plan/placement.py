"""Checks before a submission that all data between steps is on shared volumes."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset, SharedMemoryDataset

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.settings import Volume
from fourfold_ops.kubernetes.plan.steps import Step

MEMORY = (MemoryDataset, SharedMemoryDataset)


def check_placement(steps: Iterable[Step], catalog: CatalogProtocol, volumes: Iterable[Volume], project: Path) -> None:
    """Raise UserError that names every catalog entry that remote steps cannot read or cannot pass on."""
    volumes = list(volumes)
    problems = [problem for step in steps if step.remote for problem in _problems(step, catalog, volumes, project)]
    if problems:
        raise UserError(
            f"Nothing was submitted. {' '.join(dict.fromkeys(problems))}",
            "Correct conf/*/catalog.yml or the volumes of kubernetes.yml, or group nodes with a group-NAME tag.",
        )


def _problems(step: Step, catalog: CatalogProtocol, volumes: list[Volume], project: Path) -> Iterable[str]:
    for name in sorted(step.inputs | step.outputs):
        if name == "parameters" or name.startswith("params:"):
            continue  # each process reads its parameters itself
        entry: Any = catalog.get(name, fallback_to_runtime_pattern=True)
        entry = getattr(entry, "_dataset", entry)  # inside a CachedDataset
        if isinstance(entry, MEMORY) or entry is None:
            verb = "written" if name in step.outputs else "read"
            yield f"Catalog entry {name!r}, {verb} by the remote step {step.title}, is a MemoryDataset: pods cannot share it."
        elif (path := local_path(entry)) is not None and volume_of(path, volumes, project) is None:
            mounts = ", ".join(volume.mount for volume in volumes) or "none"
            where = f"is stored at {_short(path, project)}, outside all shared volumes (mounted at: {mounts})"
            yield f"Catalog entry {name!r} {where}."
        elif path is not None and name in step.outputs and (volume := volume_of(path, volumes, project)) and volume.read_only:
            yield f"Catalog entry {name!r} is written by {step.title}, but the volume at {volume.mount} is read-only."


def local_path(entry: Any) -> Path | None:
    """Return the local path of a dataset; None for the URL of an object store and for a dataset without a path."""
    for value in (getattr(entry, "_filepath", None), getattr(entry, "_path", None), *_described(entry)):
        if isinstance(value, Path | PurePosixPath) or (isinstance(value, str) and value):
            text = str(value)
            protocol = getattr(entry, "_protocol", "file")
            if "://" in text and not text.startswith("file://"):
                return None
            return (
                None if isinstance(protocol, str) and protocol not in ("file", "local") else Path(text.removeprefix("file://"))
            )
    return None


def _described(entry: Any) -> list[Any]:
    try:
        description = entry._describe()
    except Exception:  # a dataset of a third party; treat it as one without a path
        return []
    return [description.get(key) for key in ("filepath", "path")]


def volume_of(path: Path, volumes: Iterable[Volume], project: Path) -> Volume | None:
    """Return the volume that contains `path`, the innermost of several; None if there is none."""
    path = path if path.is_absolute() else project / path
    containing = [volume for volume in volumes if path.is_relative_to(project / volume.mount)]
    return max(containing, key=lambda volume: len((project / volume.mount).parts), default=None)


def shared_location(path: Path, volumes: Iterable[Volume], project: Path) -> str:
    """Return the location of `path` on its volume, e.g. "claim data:/01_raw", the same for all runs."""
    volume = volume_of(path, volumes, project)
    absolute = path if path.is_absolute() else project / path
    if volume is None:
        return str(absolute)
    inner = PurePosixPath("/", volume.sub_path, absolute.relative_to(project / volume.mount).as_posix())
    return f"claim {volume.claim}:{inner}" if volume.claim else f"host {volume.host_path}:{inner}"


def _short(path: Path, project: Path) -> str:
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
