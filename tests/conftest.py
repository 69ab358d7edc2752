"""What holds for every test."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
from extension_points import restored
from flushing import skip_flushes

from fourfold_ops.hooks.threads import limit_idle_threads

skip_flushes()
limit_idle_threads()  # before a test module imports torch
# The same examples each time: a test fails because of a change, not by chance. CONTRIBUTING.md says how to search further.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background processes so, and programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest, in the order in which a parallel run starts them, so that its processes end together. Only the
# first one needs the finished run of tests/pipelines: the other processes have something to do while it is made.
LONGEST = (
    "pipelines/test_reproduction.py",
    "fourfold_ops/test_sending.py",
    "fourfold/pretraining/test_arithmetic.py",
    "fourfold_ops/hooks/test_versioning.py",
    "fourfold/pretraining/test_distributed.py",
    "fourfold_ops/registry/test_postgres_server.py",
    "fourfold/pretraining/test_pretrain.py",
    "pipelines/test_bucket_versions.py",
    "fourfold_ops/reproduction/test_reproduce.py",
    "pipelines/test_plan_and_run.py",
    "pipelines/test_released_model.py",
    "pipelines/test_specialists.py",
    "pipelines/test_medical.py",
    "pipelines/test_driving.py",
    "pipelines/test_create_content.py",
    "fourfold_ops/kubernetes/in_pod/test_launch.py",
    "fourfold/tokenizers/training/test_training_ranks.py",
    "fourfold/data/ingestion/test_ingest.py",
    "fourfold_ops/reproduction/test_verification.py",
    "test_benchmarks.py",
    "pipelines/test_demo.py",
    "pipelines/test_viz.py",
    "fourfold_ops/cli/test_models.py",
    "fourfold_ops/registry/test_promotion.py",
    "test_stage_dependencies.py",
)


VARIABLES: dict[str, str] = {}  # of the environment, before the first test
PATH: list[str] = []  # of modules, with all folders that test modules add


def pytest_collection_finish() -> None:
    """Note the environment."""
    VARIABLES.update(os.environ)
    PATH[:] = sys.path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of the longest files to the front, and keep the order otherwise."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in places), "LONGEST names a file that does not exist"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="module", autouse=True)
def environment_of_one_module() -> Iterator[None]:
    """Give each test module the environment of the beginning, also after fixtures for the whole session.

    `mlflow.set_tracking_uri` and `set_registry_uri` set variables, and Kedro puts the folder of a project on the path of
    modules, also for programs that a later test starts.
    """
    yield
    for name in os.environ.keys() - VARIABLES.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: value for name, value in VARIABLES.items() if os.environ.get(name) != value})
    sys.path[:] = PATH


@pytest.fixture(autouse=True)
def plugins_of_one_test() -> Iterator[None]:
    """Forget the plug-ins that a test loads, e.g. by a command that it calls in this process."""
    with restored():
        yield


@pytest.fixture(autouse=True)
def signal_handlers_of_one_test() -> Iterator[None]:
    """Restore the handlers that commands set when a test calls them in this process.

    A process that a later test forks would inherit them, and might not end on SIGTERM.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
