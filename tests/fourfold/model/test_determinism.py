"""The same commit, seed and machine give the same bytes, also while another process keeps the cores busy."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.embeddings import PositionModalityEmbedding
from fourfold.model.fourm import FourM
from tests.fourfold.busy import two_busy_threads

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from default_step import DefaultStep

REPEATS_OF_STEP, REPEATS_OF_EMBEDDING = 2, 40  # a step beside busy processes takes a second
GRIDS = {"tok_rgb": 64, "tok_depth": 32, "tok_normal": 32, "tok_semseg": 16}


def small_model() -> FourM:
    """All kinds of embeddings; tables are large enough to be computed by several threads."""
    modalities = [ModalityConfig(name="rgb", kind="pixels", grid=(8, 8))]
    modalities += [ModalityConfig(name=n, kind="grid", vocabulary_size=v, grid=(16, 16)) for n, v in GRIDS.items()]
    modalities += [ModalityConfig(name="tok_clip", kind="grid", vocabulary_size=8, grid=(1, 16), learned_positions=True)]
    modalities += [ModalityConfig(name="caption", kind="sequence", vocabulary_size=90, max_length=40)]
    shape = {"dim": 128, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "patch_size": 8, "patch_stem": "conv"}
    return FourM(ModelConfig.model_validate({"modalities": modalities, **shape, "num_registers": 2}), 0)


def small_batch(config: ModelConfig) -> MaskedBatch:
    """Tokens with many equal indices: most slots of a sample have the same modality, id and position."""
    draw = torch.Generator().manual_seed(0)
    size, inputs, targets = 8, 48, 48

    def side(first: int, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        modality = torch.randint(first, len(config.modalities), (size, slots), generator=draw).sort(dim=1).values
        modality[:, slots // 2 :] = modality[:, slots // 2 : slots // 2 + 1]
        modality[:, -4:] = -1
        return modality, torch.randint(2, (size, slots), generator=draw) * (modality >= 0)

    (modality, position), (target, target_position) = side(0, inputs), side(1, targets)
    pixels = torch.randint(256, (size, 64, 64, 3), generator=draw).to(torch.uint8)
    return MaskedBatch(
        modality, position, position * (modality > 0), target, target_position, target_position, target_position, pixels
    )


def gradients(model: FourM, batch: MaskedBatch, precision: str) -> dict[str, bytes]:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
        loss = model(batch).total
    loss.backward()
    return {name: p.grad.numpy().tobytes() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_have_the_same_bytes_beside_a_busy_process(precision):
    model = small_model()
    batch = small_batch(model.config)
    with two_busy_threads():
        first = gradients(model, batch, precision)
        assert "place.modality_ED" in first and "place.learned.input_LD" in first and "registers_RD" in first
        for _ in range(REPEATS_OF_STEP):
            assert gradients(model, batch, precision) == first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_of_the_default_size_have_the_same_bytes_beside_a_busy_process(precision):
    """Hundreds of steps: `python benchmarks/determinism.py`."""
    work = DefaultStep()
    batch = work.batches[0] if precision == "fp32" else work.batches[0][:4]  # slow without instructions for bfloat16
    with two_busy_threads():
        first = gradients(work.model, batch, precision)
        for _ in range(REPEATS_OF_STEP):
            assert gradients(work.model, batch, precision) == first


def test_gradient_of_modality_vectors_does_not_depend_on_timing():
    """Each vector gets the gradients of thousands of positions, which several threads compute."""
    modalities = [ModalityConfig(name=name, kind="grid", vocabulary_size=8, grid=(64, 64)) for name in ("a", "b", "c")]
    config = ModelConfig.model_validate({"modalities": modalities, "dim": 64, "num_heads": 1})
    embedding = PositionModalityEmbedding(config)
    torch.nn.init.normal_(embedding.modality_ED, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    modality, position = torch.randint(3, (16, 64), generator=draw), torch.randint(4096, (16, 64), generator=draw)
    weight = torch.randn(16, 64, 64, generator=draw)

    def gradient() -> bytes:
        embedding.zero_grad(set_to_none=True)
        (embedding(modality, position, "input") * weight).sum().backward()
        return embedding.modality_ED.grad.numpy().tobytes()

    with two_busy_threads():
        first = gradient()
        assert all(gradient() == first for _ in range(REPEATS_OF_EMBEDDING))
