"""MkDocs hook: generate the reference pages for configuration, commands and Python modules from the code itself.

Pages that are generated cannot fall behind: `reference/configuration.md` walks the pydantic models of `pipelines.parameters`,
`reference/cli.md` walks the click commands of `pipelines.cli`, `reference/python/*.md` has one page for each package, and
`decisions/index.md` lists the decision records.
"""

import ast
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
PACKAGES = ("fourfold", "fourfold_ops")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the files of the site."""
    pages = {
        "reference/configuration.md": configuration_page(),
        "reference/cli.md": cli_page(),
        "decisions/index.md": decisions_page(),
    }
    pages |= python_pages()
    for name, text in pages.items():
        if existing := files.get_file_from_path(name):
            files.remove(existing)
        files.append(File.generated(config, name, content=text))
    return files


# Decisions ---------------------------------------------------------------------------------------------------------------


def decisions_page() -> str:
    """Return the list of decision records, by their titles."""
    lines = ["# Decisions", "", "One page for each choice that somebody may ask about: context, decision, consequences.", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


# Configuration -----------------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Return the page of all parameters, one section for each settings class, in the order in which they are reached."""
    from fourfold.configuration import Config
    from fourfold.data.ingestion.sources import SOURCES, SourceConfig
    from fourfold.labelers import LABELERS, LabelingConfig
    from fourfold.labelers.registry import known_teachers
    from fourfold.plugins import load_plugins
    from fourfold.specialists.config import SPECIALISTS, SpecialistsConfig
    from pipelines.parameters import Parameters

    load_plugins(["fourfold.scenes"])
    lines = [
        "# Configuration",
        "",
        "Every key of `conf/*/parameters.yml`, generated from the settings classes. A run checks all of them before it "
        "starts; an unknown key or a value out of range is an error that names the key and what is allowed.",
        "",
    ]
    seen: set[type[BaseModel]] = {Config}  # the base class has no keys
    queue: list[tuple[str, type[BaseModel]]] = [("", Parameters)]
    while queue:
        path, model = queue.pop(0)
        if model in seen:
            continue
        seen.add(model)
        lines += _section(path, model)
        if model is SourceConfig:  # the settings depend on the kind: one section for each registered source
            queue += [(f"{path}` with `kind: {kind}", source.config_class) for kind, source in SOURCES.items()]
        if model is LabelingConfig:  # one section for each labeler and each teacher that has settings
            queue += [(f"{path}.settings.{name}", labeler.config_class) for name, labeler in LABELERS.items()]
            queue += [(f"{path}.teachers.{name}", teacher.config_class) for name, teacher in known_teachers().items()]
        if model is SpecialistsConfig:  # one section for each specialist
            queue += [(f"{path}.settings.{name}", specialist.config_class) for name, specialist in SPECIALISTS.items()]
        for name, field in model.model_fields.items():
            queue += [(f"{path}.{name}".lstrip("."), inner) for inner in _models_in(field.annotation)]
    return "\n".join(lines)


def _section(path: str, model: type[BaseModel]) -> list[str]:
    title = f"`{path}`" if path else "Top level"
    about = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [f"## {title}", "", about, "", f"`{model.__module__}.{model.__qualname__}`", ""]
    lines += ["| Key | Type | Default | Allowed | Meaning |", "|---|---|---|---|---|"]
    comments = _comments(model)
    for name, field in model.model_fields.items():
        meaning = comments.get(name) or field.description or ""
        cells = (f"`{name}`", f"`{_type_name(field.annotation)}`", _default(field), _range(field), meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return [*lines, ""]


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return the comment of each field: what follows it on its line, else the comment lines directly above it.

    Units and meaning stand in these comments, next to the value that they explain.
    """
    comments: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (isinstance(owner, type) and issubclass(owner, BaseModel)) or owner is BaseModel:
            continue
        lines = textwrap.dedent(inspect.getsource(owner)).splitlines()
        definition = ast.parse("\n".join(lines)).body[0]
        assert isinstance(definition, ast.ClassDef)
        for statement in definition.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                comments[statement.target.id] = _comment_at(lines, statement.lineno - 1, (statement.end_lineno or 1) - 1)
    return comments


def _comment_at(lines: list[str], first: int, last: int) -> str:
    _, mark, trailing = lines[last].partition("  # ")
    if mark:
        return trailing.strip()
    above = []
    while first > 0 and lines[first - 1].strip().startswith("# "):
        first -= 1
        above.insert(0, lines[first].strip().removeprefix("# "))
    return " ".join(above)


def _type_name(annotation: object) -> str:
    """Return a type as it is written in code, without the names of modules and the metadata of `Annotated`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, inner))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, inner))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, inner))}]"
    if annotation in (None, types.NoneType, ...):
        return "..." if annotation is ... else "None"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "from other keys"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or (isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values())):
        return "see below"
    return f"`{json.dumps(value, default=str)}`" if value is not None else "none"


def _range(field: FieldInfo) -> str:
    bounds = {
        "ge": "≥",
        "gt": ">",
        "le": "≤",
        "lt": "<",
        "min_length": "length ≥",
        "max_length": "length ≤",
        "pattern": "matches",
    }
    found = [f"{sign} {getattr(rule, name)}" for rule in field.metadata for name, sign in bounds.items() if hasattr(rule, name)]
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    return ", ".join(found) or ", ".join(f"`{choice}`" for choice in choices)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in typing.get_args(annotation):
        yield from _models_in(part)


# Commands ----------------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of the project's commands."""
    from pipelines.cli import cli

    lines = [
        "# Commands",
        "",
        "Generated from the commands themselves. `make help` lists the shorter verbs of the Makefile.",
        "",
    ]
    for name, command in sorted(cli.commands.items()):
        lines += _command(f"kedro {name}", command)
    return "\n".join(lines)


def _command(path: str, command: click.Command) -> list[str]:
    lines = [f"## `{path}`", "", inspect.cleandoc(command.help or ""), ""]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["| Option | Meaning | Default |", "|---|---|---|"]
    for option in options:
        value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
        default = "" if option.default in (None, "", (), False) or callable(option.default) else f"`{option.default}`"
        default = "" if "Sentinel" in default else default
        text = (option.help or "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{', '.join(option.opts)}{value}` | {text} | {default} |".replace("[", "\\[").replace("{", "\\{"))
    lines.append("")
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        lines += _command(f"{path} {name}", inner)
    return lines


# Python ------------------------------------------------------------------------------------------------------------------


def python_pages() -> dict[str, str]:
    """Return one page of API documentation for each first-level package or module."""
    pages = {}
    index = ["# Python API", "", "One page for each package, generated from the docstrings.", ""]
    for package in PACKAGES:
        for path in sorted((ROOT / "src" / package).iterdir()):
            if path.name.startswith(("_", ".")) or not (path.suffix == ".py" or (path / "__init__.py").is_file()):
                continue
            name = f"{package}.{path.stem}"
            modules = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
            pages[f"reference/python/{name}.md"] = "\n".join([f"# {name}", "", *_modules(modules)])
            index.append(f"- [`{name}`]({name}.md)")
    return pages | {"reference/python/index.md": "\n".join(index) + "\n"}


def _modules(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if not (path.parent / "__init__.py").is_file() and path.parent.parent != ROOT / "src":
            continue  # no module of a package: code for other processes
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        if path.name == "__init__.py":
            if not path.read_text(encoding="utf-8").strip():
                continue
            parts = parts[:-1]
        yield f"::: {'.'.join(parts)}"
        yield ""
