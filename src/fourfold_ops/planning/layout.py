"""The stages of a project as dvc.yaml lists them: no pipeline is imported to read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fourfold_ops.errors import UserError

DVC_YAML = "dvc.yaml"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: Its name, which is that of a registered pipeline.
        sections: Top-level sections of the parameters that it depends on.
        inputs: Paths that other stages write and this one reads, relative to the project.
        code: Paths of code that it depends on, relative to the project.
        outside: Names of what it reads from outside the project, e.g. "source" of `${source}`.
        outputs: Paths that it writes, relative to the project.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    code: tuple[str, ...]
    outside: tuple[str, ...]
    outputs: tuple[str, ...]


def read_stages(project_path: Path) -> list[Stage]:
    """Return the stages in the order of dvc.yaml.

    Raises:
        UserError: There is no dvc.yaml with stages.
    """
    path = project_path / DVC_YAML
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    table = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise UserError(f"{path} lists no stages, so nothing can be planned.", "Give it one stage for each pipeline.")
    made = {name for entry in table.values() for name in _names(entry.get("outs"))}
    return [
        Stage(
            name=name,
            sections=tuple(dict.fromkeys(key for file in entry.get("params") or () for key in _sections(file))),
            inputs=tuple(dep for dep in entry.get("deps") or () if dep in made),
            code=tuple(dep for dep in entry.get("deps") or () if dep not in made and not dep.startswith("${")),
            outside=tuple(dep[2:-1] for dep in entry.get("deps") or () if dep.startswith("${")),
            outputs=tuple(_names(entry.get("outs"))),
        )
        for name, entry in table.items()
    ]


def _names(outs: Any) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs or ()]


def _sections(file: Any) -> list[str]:
    return [key for keys in file.values() for key in keys or ()] if isinstance(file, dict) else []
