"""The pipeline itself is reproduced: `kedro reproduce` repeats a tiny run byte for byte, and names what was changed."""

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import preloaded
from checkout import git

from fourfold_ops.reproduction.comparison import DIFFERS, IDENTICAL
from fourfold_ops.reproduction.origin import find_original
from fourfold_ops.reproduction.reproduce import Request, reproduce
from fourfold_ops.reproduction.text import lines
from fourfold_ops.reproduction.verification import verify

pytestmark = pytest.mark.slow
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
LIMIT = 600  # seconds of a run
SHARD = "data/02_labels/shards/val/depth/shard-00000.tar"
WEIGHTS = "data/04_models/pretraining/best/model.safetensors"


@pytest.fixture(scope="module")
def recorded(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, whose lock is committed."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("recorded") / "a clone", symlinks=True)
    git(folder, "add", "dvc.lock", "dvc.run.yml")
    git(folder, "commit", "-qm", "run")
    return folder


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def kill_in_pretraining(command: preloaded.Command, folder: Path) -> None:
    """Send SIGKILL to the process group half a second after the stage before has finished."""
    table, deadline = folder / "data/seconds.json", time.monotonic() + LIMIT
    while not (table.exists() and "tokenize_shards" in json.loads(table.read_text()).get("tokenizer_training", {})):
        assert command.poll() is None and time.monotonic() < deadline, f"too early or too late: {command.text()[-3000:]}"
        time.sleep(0.05)
    time.sleep(0.5)
    command.kill()


def test_tiny_run_that_is_killed_once_is_repeated_byte_for_byte(recorded, tmp_path):
    """`make torture` sends SIGKILL in each stage."""

    def fork(command: list[str], folder: Path, environment: dict[str, str]) -> int:
        log = tmp_path / "log"
        kill_in_pretraining(preloaded.Command(command, folder, environment, log), folder)
        status = preloaded.Command(command, folder, environment, log).wait(LIMIT)
        print(log.read_text(errors="replace"))
        return status

    original = find_original(recorded, "HEAD")
    assert original.facts["pretraining.precision"] and original.run_id
    comparison, workspace = reproduce(Request(recorded, original, (), tmp_path / "reproduction"), fork)
    assert comparison.verdict == IDENTICAL, "\n".join(lines(comparison))
    assert comparison.stages == STAGES and not comparison.other_machine and len(comparison.metrics) > 50
    assert (workspace.root / "dvc.lock").read_bytes() == (recorded / "dvc.lock").read_bytes()


def test_changed_shard_and_weights_of_a_tiny_run_are_named(recorded):
    original = find_original(recorded, None, in_place=True)
    assert verify(recorded, original).verdict == IDENTICAL
    before = {name: (recorded / name).read_bytes() for name in (SHARD, WEIGHTS)}
    try:
        for name in before:
            changed(recorded / name)
        comparison = verify(recorded, original)
        text = "\n".join(lines(comparison))
        assert comparison.verdict == DIFFERS
        assert [output.stage for output in comparison.outputs if output.status != "same"] == ["pseudo_labeling", "pretraining"]
        assert f"{WEIGHTS}: different (SHA-256" in text and f"{SHARD}: different (1 key: val-" in text
        key = next(change.keys for output in comparison.outputs for change in output.files if change.path == SHARD).keys[0]
        assert f"{key}.".encode() in before[SHARD]
    finally:
        for name, content in before.items():
            (recorded / name).write_bytes(content)
