"""Fixtures: one cluster for all tests of a run; a separate namespace and a miniature project for each test."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from projects import CHAIN_SECONDS, Project, clone, miniature
from testcluster.cluster import Cluster, GivenCluster, running
from testcluster.errors import ClusterError
from testcluster.traces import traces

_numbers = itertools.count()
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return the cluster of the given kubeconfig, else that of `make cluster-up`, else a temporary one."""
    if kubeconfig := os.environ.get("FOURFOLD_TEST_KUBECONFIG"):
        yield GivenCluster(Path(kubeconfig))
        return
    if folder := running(kept=True):
        yield Cluster.attach(folder)
        return
    before = traces()
    try:
        started = Cluster.start()
    except ClusterError as error:
        pytest.exit(f"The cluster did not start: {error}", returncode=3)
    try:
        yield started
    finally:
        started.stop()
    left = {kind: sorted(found - before[kind]) for kind, found in traces().items() if found - before[kind]}
    assert not left, f"the cluster left behind: {left}"


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
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """Return a cluster whose node the tests can give images and volumes."""
    if isinstance(cluster, GivenCluster):
        pytest.skip("needs a node that the tests can give images and volumes")
    return cluster


@pytest.fixture(scope="session")
def whole_chain(tmp_path_factory: pytest.TempPathFactory, own_cluster: Cluster) -> Path:
    """Return the folder of fourfold after a smoke run of all stages without the cluster."""
    folder = clone(tmp_path_factory.mktemp("alone") / "whole-chain")
    driver = Project(folder, own_cluster, "").start("run", "--env=smoke")
    assert driver.wait(CHAIN_SECONDS) == 0, driver.output[-4000:]
    return folder


@pytest.fixture
def project(tmp_path: Path, own_cluster: Cluster, namespace: str, empty_store: Path) -> Iterator[Project]:
    """Return a miniature project that is ready to run in its namespace."""
    with miniature(tmp_path / "project", own_cluster, namespace, empty_store) as made:
        yield made
