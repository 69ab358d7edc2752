"""Compute the code that each stage of dvc.yaml depends on, and write it there: `python .ci/stage_dependencies.py`.

A stage depends on its folder of pipelines/ and on every package of src/fourfold of which it can reach a module: by imports of
its nodes, of what the catalog calls to open and check its data, and of the plug-in entries in the registries that it can reach.
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = ROOT / "dvc.yaml"


def stage_dependencies() -> dict[str, list[str]]:
    """Return the paths of code that each stage depends on, relative to the project, sorted."""
    sys.path[:0] = [str(ROOT)]
    from pipelines.pipeline_registry import register_pipelines
    from pipelines.reach import plugin_modules, reached_modules

    catalog, parameters = (
        yaml.safe_load((ROOT / f"conf/base/{name}.yml").read_text(encoding="utf-8")) for name in ("catalog", "parameters")
    )
    plugins = plugin_modules(parameters.get("plugins") or [])
    dependencies = {}
    for stage, pipeline in register_pipelines().items():
        if stage != "__default__":
            reached = reached_modules(stage, pipeline.datasets(), catalog, plugins)
            paths = sorted({path_of(module) for module in reached if module.startswith("fourfold")})
            dependencies[stage] = [f"pipelines/{stage}", *paths]
    return dependencies


def path_of(module: str) -> str:
    """Return the package directly under src/fourfold that holds a module, or the file of a module that is in none."""
    folder = Path("src").joinpath(*module.split(".")[:2])
    if module == "fourfold":
        return "src/fourfold/__init__.py"
    return folder.as_posix() if (ROOT / folder).is_dir() else f"{folder.as_posix()}.py"


def written(text: str, dependencies: dict[str, list[str]]) -> str:
    """Return dvc.yaml with the code in the `deps:` of every stage replaced; data and comments stay."""
    for stage, paths in dependencies.items():
        pattern = rf"(?ms)(^  {stage}:\n.*?^    deps:\n)(.*?)(?=^    \w)"
        text = re.sub(pattern, lambda match, paths=paths: match[1] + deps_block(match[2], paths), text, count=1)
    return text


def deps_block(old: str, paths: list[str]) -> str:
    """Return the lines of `deps:`: code, then the data that are there already."""
    data = [line for line in old.splitlines() if not re.match(r"\s*- (src|pipelines)/", line)]
    return "".join(f"{line}\n" for line in [*(f"      - {path}" for path in paths), *data])


if __name__ == "__main__":
    DVC_YAML.write_text(written(DVC_YAML.read_text(encoding="utf-8"), stage_dependencies()), encoding="utf-8")
