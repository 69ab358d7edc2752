"""The registry of `echo_registry.py`, shared by all tests of this folder."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from echo_registry import MODEL, Registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Any:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "code/echo_model").mkdir(parents=True)
    (folder / "code/echo_model/__init__.py").write_text(MODEL)
    sys.path.insert(0, str(folder / "code"))
    found = Registry(folder, empty_store)
    found.register(100)
    found.register(200)
    found.champion(1)
    yield found
    sys.path.remove(str(folder / "code"))
    sys.modules.pop("echo_model", None)
