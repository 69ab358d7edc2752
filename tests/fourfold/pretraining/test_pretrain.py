import contextlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold.data.shard_store import keep_at
from fourfold.data.shards import ShardSet
from fourfold.masking.masker import Masker
from fourfold.model.files import load_model
from fourfold.model.fourm import FourM
from fourfold.pretraining.config import ComputeConfig
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.pretrain import METRICS_FILE, model_config, pretrain, sentinel_ids, validation_losses
from fourfold.storage import read_json
from fourfold.training.precision import ASSUME_BF16
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

pytestmark = pytest.mark.numeric
TINY_PRETRAINING = Path(__file__).with_name("tiny_pretraining.py")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    root = tmp_path_factory.mktemp("endings")
    done = subprocess.run([sys.executable, TINY_PRETRAINING, root], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    ("interrupted", "reference"),
    [
        ("broken", "unbroken"),
        ("one_worker", "unbroken"),
        ("four_workers", "unbroken"),
        ("preempted", "unbroken"),
        ("broken_bf16", "unbroken_bf16"),
        ("broken_replicas", "unbroken_replicas"),
    ],
)
def test_an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one(endings, interrupted, reference):
    unbroken, broken = files_of(endings / reference), files_of(endings / interrupted)
    assert set(unbroken) >= {"metrics.json", "history.json", "best/model.safetensors", "last/model.safetensors"}
    assert [name for name in unbroken if unbroken[name] != broken.get(name)] == []
    assert set(broken) == set(unbroken)
    steps = [entry["step"] for entry in read_json(endings / interrupted / "history.json") if "validation/loss" in entry]
    assert steps == [7, 14, 18]


def test_bfloat16_and_float32_runs_differ(endings):
    curves = [(endings / name / "history.json").read_bytes() for name in ("unbroken", "unbroken_bf16")]
    assert curves[0] != curves[1]


def test_replicas_learn_what_one_process_learns(endings):
    alone, shared = (read_json(endings / name / "history.json") for name in ("unbroken", "unbroken_replicas"))
    assert [list(entry) for entry in shared] == [list(entry) for entry in alone]
    for one, other in zip(alone, shared, strict=True):
        assert list(other.values()) == pytest.approx(list(one.values()), rel=2e-4, abs=2e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def test_the_best_model_has_the_lowest_validation_loss(world, tmp_path):
    config = tiny_config(total_tokens=150 * 3 * 18, average_decay=None, validate_every=50)
    folder = pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "run"))
    history = read_json(folder / "history.json")
    validations = [entry["validation/loss"] for entry in history if "validation/loss" in entry]
    assert min(validations[-2:]) < validations[0]
    model = load_model(folder / "best")
    masker = Masker(config.masking, model.config, sentinel_ids(TinyTokenizers()))
    held_out = fixed_batches(TokenLoader(TokenSplit(*world, "val"), masker, BatchOrder(3, seed=0)), 9)
    assert validation_losses(model, held_out, "fp32")["loss"] == pytest.approx(min(validations), rel=1e-6)
    metrics = read_json(folder / METRICS_FILE)
    assert metrics["validation/best_loss"] == min(validations) and metrics["tokens"] == 150 * 3 * 18


def test_a_finished_run_is_reused_and_another_seed_starts_again(world, tmp_path):
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(0, tmp_path / "run"))
    before = files_of(tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("step-*")}
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(0, tmp_path / "run"))
    assert files_of(tmp_path / "run") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("step-*")} == times
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(1, tmp_path / "run"))
    assert files_of(tmp_path / "run")["last/model.safetensors"] != before["last/model.safetensors"]


def test_tokens_and_images_in_a_bucket_give_the_same_weights(world, tmp_path, bucket):
    stored = [ShardSet(shutil.copytree(one.root, tmp_path / one.root.name)) for one in world]
    for one in stored:
        keep_at(one.root, bucket.place)
    config = tiny_config(total_tokens=3 * 3 * 18, compute=ComputeConfig(num_workers=2))
    wanted = pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "local"))
    found = pretrain(*stored, TinyTokenizers(), config, RunContext(0, tmp_path / "stored"))
    assert files_of(found) == files_of(wanted) and not list(stored[0].root.rglob("*.tar"))


def test_damage_of_a_finished_run_is_named_and_made_again(world, tmp_path, caplog):
    def run() -> None:
        pretrain(*world, TinyTokenizers(), tiny_config(total_tokens=4 * 3 * 18, validate_every=2), RunContext(0, tmp_path))

    run()
    before = files_of(tmp_path)
    (checkpoint,) = (path.name for path in tmp_path.glob("step-*"))
    models = ("best.safetensors", "best/model.safetensors", "last/model.safetensors", "last/model.json", checkpoint)
    for name in (*models, "metrics.json", "history.json", "digests.json", "best/digests.json", "fingerprint.json"):
        content = bytearray(before[name])
        content[-9] = content[-9] + 1 if chr(content[-9]).isdigit() else content[-9] ^ 1
        (tmp_path / name).write_bytes(content)
        caplog.clear()
        with contextlib.suppress(ValueError):  # a fingerprint or record that is not JSON; the next line checks the rest
            run()
        assert files_of(tmp_path) == before or name == "fingerprint.json", name
        assert str(tmp_path) in caplog.text or name == "fingerprint.json", name
        (tmp_path / name).write_bytes(before[name])


@pytest.mark.parametrize(("assumed", "precision"), [("1", "bf16"), ("0", "fp32")])
def test_auto_trains_in_the_precision_that_the_override_selects(world, tmp_path, monkeypatch, caplog, assumed, precision):
    monkeypatch.setenv(ASSUME_BF16, assumed)
    caplog.set_level(logging.INFO)
    runs = {name: tiny_config(total_tokens=4 * 3 * 18, precision=name) for name in ("auto", precision)}
    folders = [pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / name)) for name, config in runs.items()]
    auto, explicit = ((folder / "last" / "model.safetensors").read_bytes() for folder in folders)
    assert auto == explicit
    assert f"pretraining: precision {precision} (auto, with {ASSUME_BF16}={assumed})" in caplog.text


def test_a_validation_split_smaller_than_a_batch_is_one_batch(tmp_path):
    small = write_world(tmp_path / "world", num_val=2)
    config = tiny_config(total_tokens=2 * 3 * 18, validate_every=1)
    folder = pretrain(*small, TinyTokenizers(), config, RunContext(0, tmp_path / "run"))
    assert read_json(folder / METRICS_FILE)["validation/best_loss"] > 0


def test_the_model_has_the_modalities_of_tokenizers_and_images(world):
    config = model_config(tiny_config().model, TinyTokenizers(), world[1])
    assert config.names == ("rgb", "tok_depth", "tok_semseg", "caption", "det")
    assert config.modality("rgb").grid == (2, 2) and config.modality("caption").max_length == 11
    with pytest.raises(ValueError, match="Change patch_size"):
        model_config(tiny_config().model.model_copy(update={"patch_size": 3}), TinyTokenizers(), world[1])


def test_validation_averages_over_tokens_instead_of_batches(world):
    config = tiny_config()
    model = FourM(model_config(config.model, TinyTokenizers(), world[1]), 0)
    masker = Masker(config.masking, model.config, sentinel_ids(TinyTokenizers()))
    whole = fixed_batches(TokenLoader(TokenSplit(*world, "val"), masker, BatchOrder(12, seed=0)), 12)
    parts = [part for batch in whole for part in (batch[:5], batch[5:])]
    assert validation_losses(model, parts, "fp32") == pytest.approx(validation_losses(model, whole, "fp32"), rel=1e-5)
