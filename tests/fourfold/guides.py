"""Run the code blocks of a guide as it tells a reader to: as files of a package that Python can import."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def code_blocks(guide: str, language: str) -> list[str]:
    """Return the code blocks of a guide in one language."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def yaml_block(guide: str) -> dict:
    """Return the one YAML block of a guide, parsed."""
    (block,) = code_blocks(guide, "yaml")
    return yaml.safe_load(block)


@contextmanager
def plugin_of_guide(guide: str, folder: Path, name: str) -> Iterator[None]:
    """Make the one Python block of a guide importable as `my_team.<name>`."""
    (code,) = code_blocks(guide, "python")
    (folder / "my_team").mkdir()
    (folder / "my_team" / "__init__.py").touch()
    (folder / "my_team" / f"{name}.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module.partition(".")[0] == "my_team"]:
            del sys.modules[module]
