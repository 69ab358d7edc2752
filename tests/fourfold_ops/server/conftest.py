"""The registry of `echo_registry.py`, shared by all tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from echo_registry import MODEL, Registry


@pytest.fixture(scope="session")
def stored_registry(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "code/echo_model").mkdir(parents=True)
    (folder / "code/echo_model/__init__.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "code")
        found = Registry(folder, empty_store)
        found.register(100)
        found.register(200)
    return found


@pytest.fixture(scope="module")
def registry(stored_registry: Registry) -> Iterator[Registry]:
    """Return the registry, which is that of MLflow's process during a test module; version 1 is the champion."""
    stored_registry.select()
    stored_registry.champion(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(stored_registry.folder / "code")
        yield stored_registry
    sys.modules.pop("echo_model", None)
