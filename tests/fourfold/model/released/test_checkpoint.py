"""Checkpoints in the released layout: read, written, and read again."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.model.packing import Packing
from fourfold.model.released.checkpoint import export_released, load_released

GOLDEN = Path(__file__).parents[3] / "reference" / "fourm_tiny.safetensors"
BIASES = ("qkv_bias", "projection_bias", "mlp_bias", "norm_bias")
VARIANTS = {
    "swiglu": {},
    "gelu with all biases": {"gated_mlp": False, **dict.fromkeys(BIASES, True)},
    "some biases": {"qkv_bias": True, "mlp_bias": True},
    "qk-norm and registers": {"qk_norm": True, "num_registers": 3},
    "norm biases and registers": {"norm_bias": True, "qk_norm": True, "num_registers": 1},
}


def small_model(seed: int = 0, **changes: object) -> FourM:
    modalities = (
        ModalityConfig(name="rgb@224", kind="pixels", grid=(2, 3)),
        ModalityConfig(name="tok_depth@224", kind="grid", vocabulary_size=12, grid=(2, 3)),
        ModalityConfig(name="tok_clip@224", kind="grid", vocabulary_size=9, grid=(1, 5), learned_positions=True),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=20, max_length=7),
        ModalityConfig(name="det", kind="sequence", vocabulary_size=20, max_length=7, sides="target"),
        ModalityConfig(name="t5_caption", kind="vectors", vector_width=5, max_length=6),
    )
    sizes = {"dim": 16, "encoder_depth": 2, "decoder_depth": 1, "num_heads": 2, "patch_size": 4}
    return FourM(ModelConfig(modalities=modalities, **sizes | changes), seed).eval()


def small_batch() -> MaskedBatch:
    """Inputs: two patches, two grid tokens with learned positions, a word, a vector. Targets of all kinds. No empty slots."""
    draw = torch.Generator().manual_seed(0)
    modality = torch.tensor([[0, 0, 2, 2, 3, 5]] * 2)
    position = torch.tensor([[1, 4, 0, 3, 0, 0]] * 2)
    token = torch.tensor([[0, 0, 5, 8, 11, 2]] * 2)
    targets = torch.tensor([[1, 2, 3, 4]] * 2)
    zeros = torch.zeros_like(targets)
    pixels = torch.randint(0, 256, (2, 8, 12, 3), generator=draw, dtype=torch.uint8)
    return MaskedBatch(modality, position, token, targets, zeros, zeros, zeros, pixels, torch.randn(2, 6, 5, generator=draw))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_an_exported_model_loads_equal_and_exports_the_same_bytes(tmp_path, changes):
    model = small_model(**changes)
    export_released(model, tmp_path / "one.safetensors")
    loaded = load_released(tmp_path / "one.safetensors")
    export_released(loaded, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    # Checkpoints sort modalities by name, so the batch has other indices there
    index = torch.tensor([loaded.config.index(name) for name in model.config.names])
    batch = small_batch()
    theirs = MaskedBatch(
        index[batch.input_modality_BN],
        batch.input_position_BN,
        batch.input_token_BN,
        index[batch.target_modality_BM],
        *(
            getattr(batch, name)
            for name in ("target_position_BM", "target_input_BM", "target_id_BM", "pixels_BHWC", "vectors_BLE")
        ),
    )
    with torch.no_grad():
        expected, found = model.decode(batch, model.encode(batch)), loaded.decode(theirs, loaded.encode(theirs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_golden_checkpoint_is_exported_unchanged(tmp_path):
    export_released(load_released(GOLDEN), tmp_path / "again.safetensors")
    golden, again = load_file(GOLDEN), load_file(tmp_path / "again.safetensors")
    assert sorted(golden) == sorted(again)
    assert all(torch.equal(again[name], tensor) for name, tensor in golden.items())


def test_the_metadata_of_the_golden_checkpoint_is_exported_unchanged(tmp_path):
    export_released(load_released(GOLDEN), tmp_path / "again.safetensors")
    golden, again = (metadata(path) for path in (GOLDEN, tmp_path / "again.safetensors"))
    assert again == golden


def metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]


def test_registers_precede_the_inputs_and_are_in_the_context():
    model, batch = small_model(num_registers=3, qk_norm=True), small_batch()
    with torch.no_grad():
        encoding = model.encode(batch)
        without = small_model(qk_norm=True)
        without.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name != "registers_RD"})
        position_TD, content_TD = without._embed_inputs(batch, without._input_packing(batch)[1])
        x = torch.cat([model.registers_RD.expand(2, -1, -1), content_TD[sample_order()].view(2, 6, -1)], dim=1)
        dense = Packing(2, 9, None)
        for block in model.encoder:
            x = block(x.flatten(0, 1), None, dense).view(2, 9, -1)
        features = model.encoder_norm(x)
        context = model.context_projection(features)
        context[:, 3:] += position_TD[sample_order()].view(2, 6, -1)
    torch.testing.assert_close(encoding.features_BND, features[:, 3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoding.packing.pad(encoding.context_TD), context, atol=1e-5, rtol=0)
    assert encoding.keep.shape == (2, 9)


def sample_order() -> torch.Tensor:
    """Index of each slot in packed rows: pixels first (two a sample), then vectors (one), then tokens (three)."""
    return torch.tensor([0, 1, 6, 7, 8, 4, 2, 3, 9, 10, 11, 5])


def test_a_convolutional_stem_cannot_be_exported(tmp_path):
    with pytest.raises(ValueError, match="patch_stem"):
        export_released(small_model(patch_stem="conv"), tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()
