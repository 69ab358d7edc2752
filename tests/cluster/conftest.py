"""Fixtures: one cluster for all tests of a run; a separate namespace and a miniature project for each test.

A test mostly waits for one process at a time, so several run at once (`make test-cluster`). They do not disturb each other:
pods request little of the node, and all of them tolerate the taint of `test_faults.taint`, except those that it is about. A
test with the marker `alone` runs while no other one does, e.g. because it stops the API server.
"""

import fcntl
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))

from projects import CHAIN, CHAIN_SECONDS, Project, chain_clone, miniature
from shared import made_once
from testcluster.cluster import Cluster, GivenCluster, running
from testcluster.errors import ClusterError
from testcluster.programs import cache_folder
from testcluster.traces import traces

_numbers = itertools.count()
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
GIVEN = "FOURFOLD_TEST_KUBECONFIG"
LEAVING_SECONDS = 60  # for the last processes to end after that of the cluster
# A process of a parallel run gets a file at a time, and at the start two: the first one that of the chain and the third.
ORDER = ["chain", "verdicts", "machine", "manifests", "faults", "overlay", "reproduction", "submit", "runs", "outages"]
_started: list[tuple[Cluster, dict[str, set[str]]]] = []  # the temporary cluster of this run, and what existed before it


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of these tests."""
    config.addinivalue_line("markers", "alone: runs while no other test of the cluster does")
    config.addinivalue_line("markers", "taints: taints the node, so no other test with this marker runs meanwhile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files that take longest first, and end with the tests that run alone."""
    places = {f"test_{name}": place for place, name in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(item.path.stem, len(ORDER) - 2))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start a temporary cluster, once for all processes of a parallel run, unless one is given or runs already."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if is_worker or session.config.option.collectonly or os.environ.get(GIVEN) or running(kept=True):
        return
    before = traces()
    try:
        _started.append((Cluster.start(), before))
    except ClusterError as error:
        pytest.exit(f"The cluster did not start: {error}", returncode=3)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after the processes of a parallel run have ended
def pytest_sessionfinish() -> Generator[None, object, object]:
    """Stop the temporary cluster, and check that nothing of it is left."""
    result = yield
    while _started:
        started, before = _started.pop()
        started.stop()
        end = time.monotonic() + LEAVING_SECONDS
        while (left := _new(before)) and time.monotonic() < end:
            time.sleep(0.2)
        if left:
            pytest.exit(f"The cluster left behind: {left}", returncode=1)
    return result


def _new(before: dict[str, set[str]]) -> dict[str, list[str]]:
    return {kind: sorted(found - before[kind]) for kind, found in traces().items() if found - before[kind]}


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit of a test
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test beside others, or alone."""
    with ExitStack() as locks:
        if item.get_closest_marker("taints"):
            locks.enter_context(FileLock(_locks() / "taints.lock"))
        locks.enter_context(_turn(fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH))
        return (yield)


def _locks() -> Path:
    cache_folder().mkdir(parents=True, exist_ok=True)
    return cache_folder()


@contextmanager
def _turn(kind: int) -> Iterator[None]:
    """Hold a lock that one process has for itself, or several share; the first to wait for it gets it first."""
    with (_locks() / "turn.lock").open("w") as turn:
        with (_locks() / "queue.lock").open("w") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(turn, kind)
        yield


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Return the cluster of the given kubeconfig, else that of `make cluster-up`, else the temporary one."""
    if kubeconfig := os.environ.get(GIVEN):
        return GivenCluster(Path(kubeconfig))
    folder = running()
    if folder is None:
        pytest.exit("No cluster runs. Start the tests with: make test-cluster", returncode=3)
    return Cluster.attach(folder)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return a new namespace that enforces Pod Security "restricted"."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    cluster.wait_for_account(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.kubectl("delete", "persistentvolume", "--selector", f"namespace={name}", "--wait=false")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow store: creating its tables takes seconds, so this is done once and copied."""

    def make(folder: Path) -> None:
        import mlflow

        mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """Return a cluster whose node the tests can give images and volumes."""
    if isinstance(cluster, GivenCluster):
        pytest.skip("needs a node that the tests can give images and volumes")
    return cluster


@pytest.fixture(scope="session")
def clean_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of fourfold to copy."""
    return made_once(tmp_path_factory, "clean-chain", lambda folder: chain_clone(folder))


@pytest.fixture(scope="session")
def whole_chain(tmp_path_factory: pytest.TempPathFactory, own_cluster: Cluster, clean_chain: Path) -> Path:
    """Return the folder of fourfold after a run of all stages without the cluster."""

    def make(folder: Path) -> None:
        shutil.copytree(clean_chain, folder, symlinks=True, dirs_exist_ok=True)
        driver = Project(folder, own_cluster, "").start("run", *CHAIN)
        assert driver.wait(CHAIN_SECONDS) == 0, driver.output[-4000:]

    return made_once(tmp_path_factory, "whole-chain", make)


@pytest.fixture
def open_folder(own_cluster: Cluster) -> Iterator[Path]:
    """Return a folder that is not below one of root, which the user of the driver may read by a privilege that git ignores."""
    folder = Path(tempfile.mkdtemp(dir=own_cluster.folder))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(open_folder: Path, own_cluster: Cluster, namespace: str, empty_store: Path) -> Iterator[Project]:
    """Return a miniature project that is ready to run in its namespace."""
    with miniature(open_folder / "project", own_cluster, namespace, empty_store) as made:
        yield made
