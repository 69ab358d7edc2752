"""Temporary files of killed processes are removed; those of running processes and of other machines stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold_ops.atomic import remove_abandoned, temporary_name

WRITER = """
import sys, time
from pathlib import Path
from fourfold_ops.atomic import temporary_name
temporary_name(Path(sys.argv[1])).write_bytes(b"half")
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that has a half-written file `deep/data.json`."""
    (tmp_path / "deep").mkdir()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "deep/data.json")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    yield process
    process.kill()
    process.communicate()


def test_only_files_of_killed_processes_are_removed(tmp_path, writer, monkeypatch):
    own = temporary_name(tmp_path / "own.json")
    own.write_bytes(b"half")
    (tmp_path / ".partial-claim-folder").write_bytes(b"another rule")
    assert remove_abandoned(tmp_path) == 0
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        assert remove_abandoned(tmp_path) == 0
    assert remove_abandoned(tmp_path) == 1
    assert sorted(_names(tmp_path)) == sorted([own.name, ".partial-claim-folder"])


def test_links_are_not_followed(tmp_path, writer):
    writer.kill()
    writer.wait()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "deep")
    assert remove_abandoned(tmp_path / "data") == 0
    assert remove_abandoned(tmp_path / "absent") == 0


def _names(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]
