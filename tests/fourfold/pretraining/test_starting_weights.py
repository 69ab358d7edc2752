"""Pretraining from other weights: what is copied, what stays fresh, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.files import load_model, save_model
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import export_released
from fourfold.pretraining.pretrain import model_config, pretrain
from fourfold.pretraining.starting_weights import copy_weights, load_source
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

ARCHITECTURE = {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "patch_size": 4, "embedding_std": 0.5}
SOURCE = (
    ModalityConfig(name="caption", kind="sequence", vocabulary_size=60, max_length=20),
    ModalityConfig(name="rgb@224", kind="pixels", grid=(2, 2)),
    ModalityConfig(name="tok_clip_global", kind="grid", vocabulary_size=9, grid=(1, 3), learned_positions=True),
    ModalityConfig(name="tok_depth@224", kind="grid", vocabulary_size=30, grid=(2, 2)),
)
FRESH = ModalityConfig(name="tok_semseg", kind="grid", vocabulary_size=9, grid=(2, 2))
HERE = (
    SOURCE[1].model_copy(update={"name": "rgb"}),
    FRESH,
    SOURCE[3].model_copy(update={"name": "tok_depth"}),
    SOURCE[2],
    SOURCE[0].model_copy(update={"max_length": 11}),
)


def model(modalities: tuple[ModalityConfig, ...], seed: int, **changes: object) -> FourM:
    return FourM(ModelConfig(modalities=modalities, **ARCHITECTURE | changes), seed).eval()


def batch(order: tuple[int, int, int, int]) -> MaskedBatch:
    """Inputs and targets of caption, pixels, vector tokens and depth, whose indices are `order`."""
    caption, rgb, vector, depth = order
    inputs, targets = torch.tensor([[rgb, caption, vector, depth]]), torch.tensor([[caption, vector, depth]])
    places, ids = torch.tensor([[3, 0, 2, 1]]), torch.tensor([[0, 7, 5, 21]])
    pixels = torch.arange(8 * 8 * 3).view(1, 8, 8, 3).to(torch.uint8)
    return MaskedBatch(inputs, places, ids, targets, places[:, 1:], ids[:, :3], ids[:, 1:], pixels)


@pytest.mark.parametrize("ties", [{}, {"tied_heads": False, "shared_modality_vectors": False}], ids=["tied", "untied"])
def test_common_modalities_compute_the_same_and_others_stay_fresh(ties):
    source, ours, fresh = model(SOURCE, 1), model(HERE, 2, **ties), model(HERE, 2, **ties)
    assert copy_weights(source, ours) == ["tok_semseg"]
    with torch.no_grad():
        expected = source.target_logits(source.decode(given := batch((0, 1, 2, 3)), source.encode(given)), given)[0]
        found = ours.target_logits(ours.decode(given := batch((4, 0, 3, 2)), ours.encode(given)), given)[0]
    for name, theirs in (("caption", "caption"), ("tok_clip_global", "tok_clip_global"), ("tok_depth", "tok_depth@224")):
        torch.testing.assert_close(found[name], expected[theirs])
    index = ours.config.index("tok_semseg")
    assert torch.equal(ours.input_tokens.per_modality()[index], fresh.input_tokens.per_modality()[index])
    assert torch.equal(ours.positions.modality_table("input")[index], fresh.positions.modality_table("input")[index])


def test_sources_are_folders_of_ours_and_released_files(tmp_path):
    source = model(SOURCE, 1)
    save_model(source, tmp_path / "any_to_any" / "model")
    export_released(source, tmp_path / "released.safetensors")
    for path in (tmp_path / "any_to_any", tmp_path / "any_to_any" / "model", tmp_path / "released.safetensors"):
        ours = model(HERE, 2)
        copy_weights(load_source(path), ours)
        assert torch.equal(ours.mask_token_D, source.mask_token_D)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load_source(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (model(SOURCE, 1, dim=24, mlp_ratio=2), "Set dim: 24, mlp_ratio: 2.0."),
        (model(SOURCE, 1, tied_heads=False), "Set tied_heads: False."),
        (model((FRESH.model_copy(update={"name": "tok_normal"}),), 1), "has tok_normal, of which this run has none"),
        (model((HERE[2].model_copy(update={"vocabulary_size": 31}),), 1), r"'tok_depth' is \('grid', 30, 0, 0\)"),
    ],
    ids=["architecture", "untied", "nothing in common", "vocabulary"],
)
def test_sources_that_do_not_fit_are_errors(source, message):
    with pytest.raises(ValueError, match=message):
        copy_weights(source, model(HERE, 2))


def test_a_run_starts_from_the_weights_and_reuses_only_its_own_result(tmp_path):
    tokens, images = write_world(tmp_path / "world", num_train=6, num_val=3)
    config = tiny_config(total_tokens=3 * 18, warmup_tokens=0, validate_every=1)
    architecture = model_config(config.model, TinyTokenizers(), images)
    sources = [FourM(architecture, seed) for seed in (11, 12)]
    found = []
    for number, source in enumerate(sources):
        save_model(source, tmp_path / f"source{number}")
        started = config.model_copy(update={"start_from": tmp_path / f"source{number}"})
        folder = pretrain(tokens, images, TinyTokenizers(), started, RunContext(0, tmp_path / "run"))
        found.append(load_model(folder / "last").state_dict()["encoder.0.attention.qkv.weight"])
        start = source.state_dict()["encoder.0.attention.qkv.weight"]
        assert 0 < float((found[-1] - start).abs().max()) < 0.05  # one step away
    assert not torch.equal(*found)
