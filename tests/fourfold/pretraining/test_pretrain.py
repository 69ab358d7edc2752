import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fourfold.masking.masker import Masker
from fourfold.model.files import load_model
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.pretrain import METRICS_FILE, model_config, pretrain, sentinel_ids, validation_losses
from fourfold.storage import read_json
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

TINY_PRETRAINING = Path(__file__).with_name("tiny_pretraining.py")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    root = tmp_path_factory.mktemp("endings")
    done = subprocess.run([sys.executable, TINY_PRETRAINING, root], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("how", ["broken", "one_worker", "four_workers", "preempted"])
def test_pretraining_killed_or_told_to_stop_leaves_the_bytes_of_an_unbroken_run(endings, how):
    unbroken, broken = files_of(endings / "unbroken"), files_of(endings / how)
    assert set(unbroken) >= {"metrics.json", "history.json", "best/model.safetensors", "last/model.safetensors"}
    assert [name for name in unbroken if unbroken[name] != broken.get(name)] == []
    assert set(broken) == set(unbroken)
    steps = [figures["step"] for figures in read_json(endings / how / "history.json") if "validation/loss" in figures]
    assert steps == [7, 14, 18]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def test_pretraining_learns_and_the_best_model_has_the_best_validation_loss(world, tmp_path):
    config = tiny_config(total_tokens=150 * 3 * 18, average_decay=None, validate_every=50)
    folder = pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "run"))
    history = read_json(folder / "history.json")
    validations = [figures["validation/loss"] for figures in history if "validation/loss" in figures]
    assert min(validations[-2:]) < validations[0]
    model = load_model(folder / "best")
    masker = Masker(config.masking, model.config, sentinel_ids(TinyTokenizers()))
    held_out = fixed_batches(TokenLoader(TokenSplit(*world, "val"), masker, BatchOrder(3, seed=0)), 9)
    assert validation_losses(model, held_out, "fp32")["loss"] == pytest.approx(min(validations), rel=1e-6)
    metrics = read_json(folder / METRICS_FILE)
    assert metrics["validation/best_loss"] == min(validations) and metrics["tokens"] == 150 * 3 * 18


def test_a_finished_run_is_not_repeated_and_another_configuration_starts_afresh(world, tmp_path):
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(0, tmp_path / "run"))
    before = files_of(tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("step-*")}
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(0, tmp_path / "run"))
    assert files_of(tmp_path / "run") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("step-*")} == times
    pretrain(*world, TinyTokenizers(), tiny_config(), RunContext(1, tmp_path / "run"))
    assert files_of(tmp_path / "run")["last/model.safetensors"] != before["last/model.safetensors"]


def test_a_validation_split_smaller_than_a_batch_is_judged_as_one_batch(tmp_path):
    small = write_world(tmp_path / "world", num_val=2)
    folder = pretrain(
        *small, TinyTokenizers(), tiny_config(total_tokens=2 * 3 * 18, validate_every=1), RunContext(0, tmp_path / "run")
    )
    assert read_json(folder / METRICS_FILE)["validation/best_loss"] > 0


def test_the_model_gets_the_modalities_of_tokenizers_and_images(world):
    config = model_config(tiny_config().model, TinyTokenizers(), world[1])
    assert config.names == ("rgb", "tok_depth", "tok_semseg", "caption", "det")
    assert config.modality("rgb").grid == (2, 2) and config.modality("caption").max_length == 11
    with pytest.raises(ValueError, match="Change patch_size"):
        model_config(tiny_config().model.model_copy(update={"patch_size": 3}), TinyTokenizers(), world[1])


def test_validation_averages_over_tokens_not_over_batches(world):
    config = tiny_config()
    torch.manual_seed(0)
    from fourfold.model.fourm import FourM

    model = FourM(model_config(config.model, TinyTokenizers(), world[1]), 0)
    masker = Masker(config.masking, model.config, sentinel_ids(TinyTokenizers()))
    whole, parts = (
        fixed_batches(TokenLoader(TokenSplit(*world, "val"), masker, BatchOrder(size, seed=0)), 12) for size in (12, 12)
    )
    parts = [part for batch in parts for part in (batch[:5], batch[5:])]
    assert validation_losses(model, parts, "fp32") == pytest.approx(validation_losses(model, whole, "fp32"), rel=1e-5)
