"""The modules that a stage can reach: by imports of its nodes and of what the catalog calls, and by entries of plug-ins."""

import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from fourfold.plugins import Registry, load_plugins
from fourfold.source_code import closure, modules_of

CALLED_BY_THE_CATALOG = ("opener", "table", "loader")  # keys of catalog entries that name code


def reached_modules(
    stage: str, datasets: Iterable[str], catalog: Mapping[str, Any], plugins: Mapping[str, set[str]]
) -> set[str]:
    """Return the dotted names of all modules that a stage can reach.

    Args:
        stage: Name of the stage.
        datasets: Names of the data sets of its nodes.
        catalog: The configuration of the catalog.
        plugins: See `plugin_modules`.
    """
    called = {path for name in datasets for path in called_code(catalog.get(name, {}))}
    reached = set(closure({f"pipelines.{stage}.pipeline", *map(module_of, called)}))
    # entries of registries may themselves reach further registries
    while new := {module for registry in reached & set(plugins) for module in plugins[registry]} - reached:
        reached |= set(closure(new))
    return reached


def plugin_modules(plugins: list[str]) -> dict[str, set[str]]:
    """Return, for each module that holds a registry, the modules of plug-ins that have added entries to it.

    Args:
        plugins: Dotted paths of the plug-ins, which are loaded.
    """
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
    """Return the module in a dotted path such as `fourfold.data.shards.ShardSet.open`; raises ValueError if it names none."""
    parts = path.split(".")
    while parts and not _is_module(".".join(parts)):
        parts.pop()
    if not parts:
        raise ValueError(f"{path!r} in the catalog names no module. Correct the dotted path in conf/.")
    return ".".join(parts)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, AttributeError):  # its parent is a class or a module without sub-modules
        return False
