"""May the data of a pipeline cross from one machine to another? Asked before anything is submitted."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset, SharedMemoryDataset

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.settings import Volume
from fourfold_ops.kubernetes.steps import Step

MEMORY = (MemoryDataset, SharedMemoryDataset)


def check_placement(steps: Iterable[Step], catalog: CatalogProtocol, volumes: Iterable[Volume], project: Path) -> None:
    """Raise UserError that names every catalog entry which a pod could not read, or whose content would stay in the pod."""
    volumes = list(volumes)
    problems = [problem for step in steps if step.remote for problem in _problems(step, catalog, volumes, project)]
    if problems:
        raise UserError(
            f"Nothing was submitted. {' '.join(dict.fromkeys(problems))}",
            "Correct conf/*/catalog.yml or the volumes of kubernetes.yml, or group nodes with a group-… tag.",
        )


def _problems(step: Step, catalog: CatalogProtocol, volumes: list[Volume], project: Path) -> Iterable[str]:
    for name in sorted(step.inputs | step.outputs):
        if name == "parameters" or name.startswith("params:"):
            continue  # each process reads its own
        entry: Any = catalog.get(name, fallback_to_runtime_pattern=True)
        entry = getattr(entry, "_dataset", entry)  # what a CachedDataset wraps
        if isinstance(entry, MEMORY) or entry is None:
            verb = "made" if name in step.outputs else "read"
            yield (f"Catalog entry {name!r}, {verb} by the remote step {step.title}, is a MemoryDataset: it stays there.")
        elif (path := local_path(entry)) is not None and volume_of(path, volumes, project) is None:
            mounts = ", ".join(volume.mount for volume in volumes) or "none"
            yield f"Catalog entry {name!r} lies at {_short(path, project)}, outside all shared volumes (mounted at: {mounts})."
        elif path is not None and name in step.outputs and (volume := volume_of(path, volumes, project)) and volume.read_only:
            yield f"Catalog entry {name!r} is written by {step.title}, but the volume at {volume.mount} is read-only."


def local_path(entry: Any) -> Path | None:
    """Return where a dataset lies; None for an object store's URL, and for a dataset that has no path of its own."""
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
    except Exception:  # a third party's dataset: without a description it is taken for one without a path
        return []
    return [description.get(key) for key in ("filepath", "path")]


def volume_of(path: Path, volumes: Iterable[Volume], project: Path) -> Volume | None:
    """Return the volume, the innermost one, that holds `path` in pods as well."""
    path = path if path.is_absolute() else project / path
    holding = [volume for volume in volumes if path.is_relative_to(project / volume.mount)]
    return max(holding, key=lambda volume: len((project / volume.mount).parts), default=None)


def place(path: Path, volumes: Iterable[Volume], project: Path) -> str:
    """Return a name for where `path` lies that is the same for all who share the volume, e.g. "claim data:/01_raw"."""
    volume = volume_of(path, volumes, project)
    absolute = path if path.is_absolute() else project / path
    if volume is None:
        return str(absolute)
    inner = PurePosixPath("/", volume.sub_path, absolute.relative_to(project / volume.mount).as_posix())
    return f"claim {volume.claim}:{inner}" if volume.claim else f"host {volume.host_path}:{inner}"


def _short(path: Path, project: Path) -> str:
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
