import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from preloaded import Command

from fourfold_ops import data_lock
from fourfold_ops.errors import EXIT_BUSY, UserError


@pytest.fixture
def waiting_run(miniature):
    """Return a run in another process, which waits in the node `tune_numbers` until the file `waiting` is removed."""
    environment = {**os.environ, "MINIATURE_WAIT": "1", "DO_NOT_TRACK": "1"}
    run = Command(["kedro", "run"], miniature.folder, environment, miniature.folder.with_name("log"))
    while not (miniature.folder / "waiting").exists():
        assert run.poll() is None
        time.sleep(0.02)
    yield run
    run.kill()


def contents(folder):
    """Return every file but logs; of the MLflow store its runs, since the first run keeps adding metrics of the system."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    del files[folder / "mlflow.db"]
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return files, database.execute("SELECT run_uuid, name, status FROM runs ORDER BY run_uuid").fetchall()


def test_second_run_names_the_first_and_changes_nothing(miniature, waiting_run):
    before = contents(miniature.folder / "data")
    second = miniature.command("kedro", "run", "--params=seed=5")
    assert second.returncode == EXIT_BUSY
    last = second.stderr.strip().splitlines()[-1]
    assert f"process {waiting_run.pid}, `kedro run`, since 20" in last and f"`kill {waiting_run.pid}`" in last
    assert contents(miniature.folder / "data") == before
    (miniature.folder / "waiting").unlink()
    assert waiting_run.wait(300) == 0
    miniature.run()


def test_lock_ends_with_a_killed_process(miniature, waiting_run):
    os.kill(waiting_run.pid, signal.SIGKILL)
    waiting_run.wait(300)
    miniature.run()
    miniature.run()  # the first run of this process has released it


def start_holder(folder, program):
    """Start a process that takes the lock and then runs `program`; return it and the line that it prints."""
    imports = "import os, time\nfrom pathlib import Path\nfrom fourfold_ops import data_lock\n"
    code = f"{imports}data_lock.acquire(Path({str(folder)!r}), 'x')\n"
    child = subprocess.Popen([sys.executable, "-c", code + program], stdout=subprocess.PIPE, text=True)
    return child, child.stdout.readline().strip()


def test_forked_child_of_a_killed_run_does_not_hold_the_lock(tmp_path):
    child, forked = start_holder(tmp_path, "pid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(60)")
    with pytest.raises(data_lock.BusyError):
        data_lock.acquire(tmp_path, "y")
    child.kill()
    child.wait()
    data_lock.acquire(tmp_path, "y")
    data_lock.release(tmp_path)
    os.kill(int(forked), signal.SIGKILL)


def test_holder_without_description_is_reported_too(tmp_path):
    child, _ = start_holder(tmp_path, "print(flush=True)\ntime.sleep(60)")
    (tmp_path / data_lock.LOCK_FILE).write_text("")
    with pytest.raises(data_lock.BusyError, match="Another run works on"):
        data_lock.acquire(tmp_path, "y")
    child.kill()
    child.wait()


def test_unwritable_folder_and_missing_locks(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        data_lock.acquire(tmp_path / "file", "x")

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(data_lock.fcntl, "lockf", no_locks)
    data_lock.acquire(tmp_path, "x")
    assert "has no file locks" in caplog.text
