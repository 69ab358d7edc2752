"""Where ingestion reads from: the paths in its settings, found and checked without loading a stage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fourfold.data.ingestion.sources.patterns import SPECIAL, is_pattern, split_pattern


def check_paths(ingestion: dict[str, Any]) -> None:
    """Raise ValueError if the path of a source does not exist; patterns and addresses are left to the source."""
    for name, section in _sections(ingestion):
        path = section.get("path")
        if not isinstance(path, str) or "://" in path or is_pattern(path) or Path(path).expanduser().exists():
            continue
        raise ValueError(
            f"ingestion.{name}.path {path!r} does not exist (from {Path.cwd()}). Give an existing file or folder; nothing was "
            "changed."
        )


def source_files(parameters: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    """Return what ingestion reads from outside, by its name in dvc.yaml, and a file of the stage for sources without files.

    Of a pattern, also behind an address such as `s3://`, it is the folder in which the pattern starts. DVC does not watch
    several sources; a run notices their changes itself.
    """
    ingestion = parameters.get("ingestion") or {}
    found: dict[str, tuple[str | None, str]] = {}
    for name, instead in (("source", "pipelines/ingestion/nodes.py"), ("supplement", "pipelines/ingestion/pipeline.py")):
        path = (ingestion.get(name) or {}).get("path")
        found[name] = (_place_of(path) if isinstance(path, str) else None, instead)
    return found


def _sections(ingestion: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the section of each source, also of those within `several`."""
    for name in ("source", "supplement"):
        section = ingestion.get(name) or {}
        inner = section.get("sources")
        yield name, section
        if isinstance(inner, dict):
            yield from ((f"{name}.sources.{own}", one) for own, one in inner.items() if isinstance(one, dict))


def _place_of(path: str) -> str:
    scheme, separator, address = path.partition("://")
    if separator:
        return f"{scheme}://{split_pattern(address)[0].as_posix()}" if SPECIAL.search(address) else path
    path = str(Path(path).expanduser())
    return str(split_pattern(path)[0]) if is_pattern(path) else path
