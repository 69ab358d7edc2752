"""Splitting work over processes that share a folder."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.reuse import FINGERPRINT_FILE, claim, fingerprint
from fourfold.storage import read_json

CLAIM_AND_WRITE = """
import sys, pathlib
from fourfold.reuse import claim, fingerprint
from fourfold.storage import write_bytes
folder = pathlib.Path(sys.argv[1])
new = fingerprint("fourfold.storage", work="new")
sys.stdin.readline()
claim(folder, new, shared=True)
write_bytes(folder / sys.argv[2], b"done")
"""


@given(st.lists(st.integers()), st.integers(1, 9))
def test_every_item_is_in_exactly_one_share(items, count):
    shares = [WorkSplit(index, count).of(items) for index in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert NO_SPLIT.of(items) == items


def test_share_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Work split 4 of 4 does not exist; allowed: 0 to 3"):
        WorkSplit(4, 4).of([1])


def test_concurrent_claims_clear_a_folder_once(tmp_path):
    old, new = (fingerprint("fourfold.storage", work=name) for name in ("old", "new"))
    claim(tmp_path, old)
    for number in range(200):
        (tmp_path / f"stale-{number}").touch()
    names = [f"part-{number}" for number in range(4)]
    command = [sys.executable, "-c", CLAIM_AND_WRITE, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], stdin=subprocess.PIPE) for name in names]
    time.sleep(0.5)
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait(300) for process in processes] == [0] * 4
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {*names, FINGERPRINT_FILE}
    assert read_json(tmp_path / FINGERPRINT_FILE) == new.as_json()
    assert claim(tmp_path, new) and not list(tmp_path.glob(".partial-*"))  # the run over the whole leaves no lock behind
