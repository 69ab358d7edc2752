import errno
import fcntl
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import mlflow
import pytest

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.tracking import local_store
from fourfold_ops.tracking.local_store import prepare
from fourfold_ops.tracking.server import check_answers
from fourfold_ops.tracking.store import TrackingStore


def store_in(folder):
    return TrackingStore(folder, "sqlite:///data/mlflow.db", "tests")


@pytest.fixture
def project(tmp_path, empty_store, monkeypatch):
    """Return a project folder with an empty MLflow store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "a project/data").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "a project/data/mlflow.db")
    return tmp_path / "a project"


def test_creation_killed_at_any_moment_leaves_no_store(tmp_path):
    code = (
        "import sys, mlflow.store.tracking.sqlalchemy_store\nfrom pathlib import Path\n"
        "from fourfold_ops.tracking.local_store import prepare\nprint(flush=True)\n"
        f"prepare(Path({str(tmp_path / 'mlflow.db')!r}), Path({str(tmp_path / 'artifacts')!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    while not any(path.stat().st_size for path in tmp_path.glob(".partial*")):  # tables are being created
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not (tmp_path / "mlflow.db").exists()
    prepare(tmp_path / "mlflow.db", tmp_path / "artifacts")
    assert mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_experiment("0").name == "Default"


def test_process_that_was_killed_in_a_transaction_leaves_a_usable_store(project):
    database = project / "data/mlflow.db"
    code = (
        "import os, signal, sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\nconnection.execute('BEGIN')\n"  # pages are written before the commit
        "connection.execute('UPDATE experiments SET name = hex(zeroblob(100000))')\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, database], check=False).returncode == -signal.SIGKILL
    assert database.with_name("mlflow.db-journal").stat().st_size
    prepare(database, project / "data/mlflow_artifacts")
    assert mlflow.MlflowClient(f"sqlite:///{database}").get_experiment("0").name == "Default"


def test_store_that_was_not_created_completely_is_set_aside(project):
    database = project / "data/mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM experiments")
    store_in(project)
    assert (project / "data/mlflow.db.incomplete").exists()
    assert store_in(project).experiment_id  # complete now


def test_two_processes_that_start_at_once_share_one_store_and_one_experiment(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def record_run(_):
        store = store_in(tmp_path)
        return store.client.create_run(store.experiment_id).info.run_id

    with ThreadPoolExecutor(2) as starts:
        recorded = sorted(starts.map(record_run, range(2)))
    store = store_in(tmp_path)
    assert sorted(run.info.run_id for run in store.client.search_runs([store.experiment_id])) == recorded


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_store_is_created_on_a_file_system_without_locks(tmp_path, monkeypatch, code):
    def refuse(*arguments):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(local_store, "_create", lambda database, artifacts: database.write_text("created"))
    prepare(tmp_path / "mlflow.db", tmp_path / "artifacts")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_damaged_store_is_named_without_sql_and_stays(project):
    database = project / "data/mlflow.db"
    for damage in (b"no database at all" * 100, database.read_bytes()[:5000]):
        database.write_bytes(damage)
        with pytest.raises(UserError, match=r"mlflow.db is not a usable MLflow store \(") as error:
            store_in(project)
        assert "SELECT" not in str(error.value) and "the next run creates a new one" in error.value.remedy
        assert database.read_bytes() == damage


def test_artifacts_of_a_moved_project_are_found(project, monkeypatch):
    store = store_in(project)
    run = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run, "kept", "note.txt")
    moved = project.rename(project.parent / "renamed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow has set it in this process
    client = store_in(moved).client
    assert client.get_run(run).info.artifact_uri.startswith((moved / "data/mlflow_artifacts").as_uri())
    assert mlflow.artifacts.load_text(client.get_run(run).info.artifact_uri + "/note.txt") == "kept"
    experiment = client.get_experiment_by_name("tests").experiment_id
    client.log_text(client.create_run(experiment).info.run_id, "new", "other.txt")
    assert len(list(moved.rglob("other.txt"))) == 1 and not project.exists()


def test_step_on_another_machine_keeps_the_addresses_of_its_driver(project, monkeypatch):
    store = store_in(project)
    run = store.client.create_run(store.experiment_id).info.run_id
    address = store.client.get_run(run).info.artifact_uri
    in_pod = project.parent / "pod"
    shutil.copytree(project, in_pod)
    (in_pod / "data/mlflow_artifacts").mkdir(exist_ok=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv(handover.STEP, "train")
    assert store_in(in_pod).client.get_run(run).info.artifact_uri == address


def test_deleted_experiment_is_one_error_with_the_command_that_restores_it(project):
    store = store_in(project)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="'tests' was deleted") as error:
        store_in(project)
    assert f"mlflow experiments restore --experiment-id {store.experiment_id}" in error.value.remedy


def test_silent_and_absent_servers_are_reported_within_seconds(project, monkeypatch):
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr("fourfold_ops.tracking.server.SECONDS", 0.3)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="no answer within"):
            check_answers(address, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match=f"{address} does not answer") as error:
        store_in(project)
    assert "correct its address in MLFLOW_TRACKING_URI" in error.value.remedy
    with pytest.raises(UserError, match="does not answer"):
        check_answers("http://[::1", "x")
