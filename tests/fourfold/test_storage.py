"""Files are whole or absent, in both packages: `fourfold_ops` must not import `fourfold`, so each has its own writer."""

import os

import pytest

from fourfold import storage
from fourfold_ops import atomic

WRITERS = {"fourfold": storage.write_bytes, "fourfold_ops": atomic.write_whole}
NAMES = {"fourfold": storage.temporary_name, "fourfold_ops": atomic.temporary_name}
packages = pytest.mark.parametrize("package", WRITERS)


@packages
def test_file_is_replaced_as_a_whole_and_nothing_else_is_left(package, tmp_path):
    path = tmp_path / "deep" / "file"
    for content in (b"old", b"new"):
        WRITERS[package](path, content)
        assert path.read_bytes() == content
    assert [child.name for child in path.parent.iterdir()] == ["file"]


@packages
def test_failed_write_keeps_the_old_file(package, tmp_path, monkeypatch):
    path = tmp_path / "file"
    WRITERS[package](path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        WRITERS[package](path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@packages
def test_temporary_names_differ_by_host_process_and_chance(package, tmp_path, monkeypatch):
    """Two pods on one volume may have the same process id, and a restarted pod the host name of its predecessor."""
    path = tmp_path / "file"
    names = [NAMES[package](path) for _ in range(100)]
    assert len(set(names)) == 100
    monkeypatch.setattr("socket.gethostname", lambda: "pod-7")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    name = NAMES[package](path).name
    assert name.startswith(".partial-pod-7-1-") and name.endswith("-file")
    assert name.startswith(storage.PARTIAL_MARK)
