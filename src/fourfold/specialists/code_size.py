"""How much code there is to maintain for a way of answering the tasks.

Counted are the lines with code (no blank lines, comments or docstrings) of the modules that its entry points import, directly
or not. Left out is what every way needs: data, training loop, metrics, modalities, files (`SHARED`); the conversion of
released weights; and libraries such as torch and torchvision.
"""

import ast
import importlib.util
import io
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "fourfold"
SHARED = {
    *("configuration", "data", "digests", "images", "local_workers", "metric_log", "metrics", "modalities", "plugins"),
    *("progress", "reuse", "seeds", "source_code", "storage", "suggestions", "training"),
}
LEFT_OUT = "released"  # packages of this name convert weights from elsewhere
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def own_modules(entry_points: Iterable[str]) -> set[str]:
    """Return the modules that some modules need, themselves included, without what is shared.

    `fourfold.source_code.closure` also follows the `__init__` of every package on the way, which loads entries of registries
    that nobody here uses.
    """
    waiting, found = set(entry_points), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found and not _is_shared(name) and (path := _file_of(name)) is not None:
            found.add(name)
            waiting |= set(_imports(path))
    return found


def count_lines(modules: Iterable[str]) -> int:
    """Return the number of lines with code of some modules."""
    return sum(code_lines(path.read_text(encoding="utf-8")) for name in modules if (path := _file_of(name)) is not None)


def code_lines(source: str) -> int:
    """Return the number of lines of Python source that are neither blank nor only a comment or a docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in NO_CODE for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def _is_shared(name: str) -> bool:
    parts = name.split(".")
    return parts[0] != PACKAGE or len(parts) == 1 or parts[1] in SHARED or LEFT_OUT in parts


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the modules of this package that a file imports; `from a import b` names the module `a.b` if there is one."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if name.startswith(PACKAGE) and _file_of(name) is not None]
            names += modules or [node.module]
    return tuple(name for name in names if name.split(".")[0] == PACKAGE)


@cache
def _file_of(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # its parent is a module, e.g. for the name of a class
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
