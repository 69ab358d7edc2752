"""Compute the code that each stage of dvc.yaml depends on, and write it there: `python .ci/stage_dependencies.py`.

A stage depends on its folder of pipelines/ and on every package of src/fourfold of which it can reach a module: by imports of
its nodes, of what the catalog calls to open and check its data, and of the plug-in entries in the registries that it can reach.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = ROOT / "dvc.yaml"
CALLED_BY_THE_CATALOG = ("opener", "table", "loader")  # keys of catalog entries that name code


def stage_dependencies() -> dict[str, list[str]]:
    """Return the paths of code that each stage depends on, relative to the project, sorted."""
    sys.path[:0] = [str(ROOT)]
    from fourfold.source_code import closure
    from pipelines.pipeline_registry import register_pipelines

    catalog = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text(encoding="utf-8"))
    from_plugins = plugin_modules()
    dependencies = {}
    for stage, pipeline in register_pipelines().items():
        if stage == "__default__":
            continue
        called = {path for name in pipeline.datasets() for path in called_code(catalog.get(name, {}))}
        entry_points = {f"pipelines.{stage}.pipeline", *map(module_of, called)}
        reached = set(closure(entry_points))
        # entries of registries may themselves reach further registries
        while new := {module for registry in reached & set(from_plugins) for module in from_plugins[registry]} - reached:
            reached |= set(closure(new))
        dependencies[stage] = [f"pipelines/{stage}", *sorted({path_of(m) for m in reached if m.startswith("fourfold")})]
    return dependencies


def plugin_modules() -> dict[str, set[str]]:
    """Return, for each module that holds a registry, the modules of plug-ins that have added entries to it."""
    from fourfold.plugins import Registry, load_plugins
    from fourfold.source_code import modules_of

    plugins = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text(encoding="utf-8")).get("plugins") or []
    load_plugins(plugins)
    found: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("fourfold."):
            for registry in [value for value in vars(module).values() if isinstance(value, Registry)]:
                modules = modules_of(entry for _, entry in registry.items())
                added = {m for m in modules if any(m == plugin or m.startswith(f"{plugin}.") for plugin in plugins)}
                found.setdefault(name, set()).update(added)
    return found


def called_code(entry: Any) -> list[str]:
    """Return the dotted paths of this project's code that a catalog entry names."""
    if not isinstance(entry, dict):
        return []
    named = [entry[key] for key in CALLED_BY_THE_CATALOG if str(entry.get(key, "")).startswith("fourfold.")]
    return named + [path for value in entry.values() for path in called_code(value)]


def module_of(path: str) -> str:
    """Return the module in a dotted path such as `fourfold.data.shards.ShardSet.open`."""
    parts = path.split(".")
    while parts and not (ROOT / "src").joinpath(*parts).with_suffix(".py").is_file():
        parts.pop()
    assert parts, f"{path} names no module"
    return ".".join(parts)


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
