"""The source code that a result can depend on: every module that an entry point reaches by imports, with a digest each.

The closure is computed without running anything (grimp reads the imports). It contains:

- every module that the entry points import, directly or not. Imports inside functions count, since they run when the function
  does; imports under `if TYPE_CHECKING:` do not run and do not count.
- the `__init__` of every package on the way, with its imports: Python executes it first.

What is called through a registry is not imported by the caller. The caller names the entries that it uses instead (see
`modules_of`), and their modules are entry points too: only the labelers that the configuration selects count, not all.

A digest covers the syntax tree without docstrings, so comments, docstrings and layout can be edited freely. Installed packages
(site-packages) count by their version, and only where a registry entry comes from one; torch and NumPy do not count.
"""

# The result depends on the files alone: neither on import order nor on what this process has imported so far.

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

DIGEST_LENGTH = 16  # hex digits: a module is compared with an earlier version of itself only
INSTALLED = ("site-packages", "dist-packages")


def module_digests(entry_points: Iterable[str]) -> dict[str, str]:
    """Return a digest of every module in the import closure of `entry_points`, by dotted name in sorted order.

    Args:
        entry_points: Dotted names of modules, e.g. `["fourfold.pretraining.pretrain"]`.

    Returns:
        For a module of this project or of a plug-in, a digest of its code; for an installed package, "version 1.2.3".

    Raises:
        ValueError: An entry point is not a module that can be found.
    """
    own, digests = [], {}
    for name in sorted(set(entry_points)):
        root = name.partition(".")[0]
        if _is_installed(root):
            digests[root] = f"version {_version(root)}"
        elif root not in sys.stdlib_module_names:
            own.append(name)
    digests.update({name: _digest(path) for name in closure(own) if (path := _source_file(name))})
    return dict(sorted(digests.items()))


def current_digests(modules: Iterable[str]) -> dict[str, str]:
    """Return the digests of modules that an earlier `module_digests` returned, as they are now; absent ones are left out.

    No import is followed, so this takes milliseconds. A module that the closure has gained is not found, but what imports it
    has then changed.
    """
    digests = {}
    for name in sorted(set(modules)):
        root = name.partition(".")[0]
        if importlib.util.find_spec(root) is None:
            continue
        if _is_installed(root):
            digests[name] = f"version {_version(root)}"
        elif path := _source_file(name):
            digests[name] = _digest(path)
    return digests


def closure(entry_points: Iterable[str]) -> list[str]:
    """Return the dotted names of all modules that the entry points reach by imports, themselves included, sorted.

    Raises:
        ValueError: An entry point is not a module that can be found.
    """
    waiting, reached = sorted(set(entry_points)), set()
    roots = {name.partition(".")[0] for name in waiting} | {"fourfold"}
    graph = _import_graph(tuple((root, _package_folder(root) or _source_file(root)) for root in sorted(roots)))
    for name in waiting:
        if name not in graph:
            raise ValueError(
                f"{name!r} is not a module of {', '.join(sorted({n.partition('.')[0] for n in graph}))}. Use one of these."
            )
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            parent = name.rpartition(".")[0]
            waiting += [*graph[name], *([parent] if parent in graph else [])]
    return sorted(reached)


def modules_of(entries: Iterable[Any]) -> list[str]:
    """Return the modules that define registry entries: functions, classes, instances, and what a dataclass holds of these.

    Strings are taken for dotted names of modules.
    """
    found: set[str] = set()
    for entry in entries:
        if isinstance(entry, str):
            found.add(entry)
        elif isinstance(entry, partial):
            found.update(modules_of([entry.func]))
        elif isinstance(entry, type) or callable(entry):
            found.add(getattr(entry, "__module__", None) or type(entry).__module__)
        else:
            found.add(type(entry).__module__)
        if is_dataclass(entry) and not isinstance(entry, type):
            values = [getattr(entry, field.name) for field in fields(entry)]
            found.update(modules_of(value for value in values if callable(value) or is_dataclass(value)))
    return sorted(name for name in found if name.partition(".")[0] not in sys.stdlib_module_names)


@cache
def _import_graph(roots: tuple[tuple[str, Path | None], ...]) -> dict[str, list[str]]:
    """Return what each module of some top-level packages imports from these packages.

    Args:
        roots: Name of each package, and its folder or single file. Both are the key of the cache, since a long-lived
            process, such as a notebook, may load another package of the same name.
    """
    import grimp  # here: most processes never claim a folder

    packages = [root for root, location in roots if location and location.is_dir()]
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: sorted(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    # grimp reads packages; a plug-in that is a single file is read here
    for root, location in roots:
        if location and location.is_file():
            imports[root] = sorted(_imports_of_file(location) & set(imports))
    return imports


def _imports_of_file(path: Path) -> set[str]:
    """Return every dotted name that a file may import; `from a import b` gives both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def _package_folder(root: str) -> Path | None:
    """Return the folder of a top-level package; None for a single file and for what does not exist."""
    spec = importlib.util.find_spec(root)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0]) if folders else None


def _source_file(name: str) -> Path | None:
    """Return the file of a module; None for a namespace package and for a module that is not written in Python."""
    root, *rest = name.split(".")
    folder = _package_folder(root)
    if folder is None:
        spec = importlib.util.find_spec(root)
        return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
    path = folder.joinpath(*rest)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _is_installed(root: str) -> bool:
    location = _package_folder(root) or _source_file(root)
    return location is not None and any(part in INSTALLED for part in location.parts)


def _version(root: str) -> str:
    try:
        return metadata.version(root)
    except metadata.PackageNotFoundError:  # the distribution has another name than the package
        return ", ".join(sorted(metadata.version(name) for name in metadata.packages_distributions().get(root, [])))


@cache
def _digest(path: Path) -> str:
    """Return a digest of the code in a file, without docstrings and comments."""
    pieces: list[str] = []
    _append(ast.parse(path.read_bytes(), str(path)), pieces)
    return hashlib.sha256("\0".join(pieces).encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def _append(node: Any, pieces: list[str]) -> None:
    """Append a text form of a syntax tree that is the same in all supported versions of Python.

    Not `ast.dump`: since Python 3.13 it omits empty fields, and two machines with other versions would never agree.
    """
    if isinstance(node, ast.AST):
        pieces.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                pieces.append(name)
                _append(value, pieces)
    elif isinstance(node, list):
        for item in node:
            if not _is_bare_string(item):
                _append(item, pieces)
        pieces.append("]")
    else:
        pieces.append(repr(node))


def _is_bare_string(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
