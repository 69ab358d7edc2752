"""A finished run of all stages, made once for all tests that need one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from checkout import start_run
from shared import made_once
from tiny import ENVIRONMENT, tiny_clone

LIMIT = 600  # seconds of the run
FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the finished run as slow."""
    for item in items:
        if item.path.parent == FOLDER and "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone with a tiny run of all stages by two processes. Tests copy it before they change anything."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # of a test before: the run has its own store
            command = start_run(tiny_clone(folder, num_threads=2), f"--env={ENVIRONMENT}")
        assert command.wait(LIMIT) == 0, command.text()[-3000:]

    return made_once(tmp_path_factory, "finished project", make)
