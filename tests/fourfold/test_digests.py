"""A file that changed after it was written is never read as a result, and a kill leaves files that agree with their record."""

import os
from collections.abc import Callable
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.digests import (
    DIGESTS_FILE,
    check_digests,
    forget_digests,
    is_intact,
    record_digests,
    recorded_digests,
    sha256_file,
    write_recorded,
    write_recorded_json,
)
from fourfold.storage import write_bytes


def test_changed_missing_and_unrecorded_files_are_named_with_the_remedy(tmp_path):
    for name in ("a", "b"):
        write_bytes(tmp_path / name, name.encode())
        record_digests(tmp_path, name)
    check_digests(tmp_path, "Do it again.", "a", "b")
    write_bytes(tmp_path / "b", b"other")
    found, expected = (sha256(content).hexdigest() for content in (b"other", b"b"))
    with pytest.raises(ValueError, match=rf"b changed .* SHA-256 {found}, expected {expected} \(digests.json\). Do it again."):
        check_digests(tmp_path, "Do it again.", "a")
    (tmp_path / "b").unlink()
    with pytest.raises(ValueError, match=rf"b is missing \(expected SHA-256 {expected}, .*Do it again"):
        check_digests(tmp_path, "Do it again.")
    (tmp_path / DIGESTS_FILE).unlink()
    with pytest.raises(ValueError, match="a has no digest in"):
        check_digests(tmp_path, "Do it again.", "a")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 10**6), st.integers(0, 7))
def test_every_flipped_bit_is_found_whatever_the_times_of_the_file(tmp_path_factory, content, position, bit):
    folder = tmp_path_factory.mktemp("digests")
    write_recorded(folder, "a", content)
    assert is_intact(folder, "a") and sha256_file(folder / "a") == sha256(content).hexdigest()
    times, changed = (folder / "a").stat(), bytearray(content)
    changed[position % len(content)] ^= 1 << bit
    (folder / "a").write_bytes(changed)
    os.utime(folder / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not is_intact(folder, "a")


def test_file_is_hashed_once_while_it_is_unchanged(tmp_path, monkeypatch):
    write_recorded(tmp_path, "a", b"content")
    monkeypatch.setattr("fourfold.digests.SETTLED", -1)
    sha256_file(tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", None)  # would raise
        assert sha256_file(tmp_path / "a") == sha256(b"content").hexdigest()
    write_bytes(tmp_path / "a", b"another")
    assert sha256_file(tmp_path / "a") == sha256(b"another").hexdigest()


def _killed(write: Callable[[], None], at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Call `write`, killed at its rename number `at`; return whether it was killed."""
    renames, replace = 0, Path.replace

    def counted(self, target):
        nonlocal renames
        renames += 1
        if renames == at:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted)
        try:
            write()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("at", range(1, 5))
def test_kill_leaves_a_file_that_agrees_with_the_record_and_the_next_write_completes_it(tmp_path, monkeypatch, at):
    write_recorded(tmp_path, "a", b"old")
    was_killed = _killed(lambda: write_recorded(tmp_path, "a", b"new"), at, monkeypatch)
    assert was_killed == (at < 4) and (tmp_path / "a").read_bytes() == (b"old" if at < 3 else b"new")
    check_digests(tmp_path, "", "a")
    for second in range(1, 4):  # killed again and again
        _killed(lambda: write_recorded(tmp_path, "a", b"new"), second, monkeypatch)
        check_digests(tmp_path, "", "a")
    if not is_intact(tmp_path, "a") or (tmp_path / "a").read_bytes() == b"old":
        write_recorded(tmp_path, "a", b"new")
    assert recorded_digests(tmp_path) == {"a": sha256(b"new").hexdigest()} and (tmp_path / "a").read_bytes() == b"new"


def test_writing_over_a_changed_file_says_so(tmp_path, caplog):
    write_recorded_json(tmp_path, "a.json", {"loss": 1})
    write_recorded_json(tmp_path, "a.json", {"loss": 2})
    assert not caplog.text
    (tmp_path / "a.json").write_text('{"loss": 0}')
    write_recorded_json(tmp_path, "a.json", {"loss": 2})
    assert caplog.text.count("a.json changed after it was written") == 1 and "Writing it again." in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '"x"', "\xff"])
def test_damaged_record_is_an_error_for_readers_and_is_made_again_by_writers(tmp_path, content, caplog):
    write_recorded(tmp_path, "a", b"a")
    (tmp_path / DIGESTS_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{DIGESTS_FILE} is not .*run the step that writes it again"):
        check_digests(tmp_path, "", "a")
    assert not is_intact(tmp_path, "a") and "Making its files again" in caplog.text
    write_recorded(tmp_path, "a", b"a")
    check_digests(tmp_path, "", "a")


def test_processes_record_at_the_same_time(tmp_path):
    names = [f"{index}.json" for index in range(40)]
    with get_context("fork").Pool(4) as pool:
        pool.starmap(write_recorded_json, [(tmp_path, name, name) for name in names])
    assert sorted(check_digests(tmp_path, "", *names)) == sorted(names)
    forget_digests(tmp_path, names[1:])
    assert list(recorded_digests(tmp_path)) == ["0.json"]
