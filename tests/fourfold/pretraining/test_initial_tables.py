"""Token embeddings that start with the geometry of the codebook."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.pretraining.initial_tables import add_codes

STD, WIDTH = 0.5, 256
CONFIG = ModelConfig(
    dim=WIDTH,
    encoder_depth=1,
    decoder_depth=1,
    num_heads=2,
    embedding_std=STD,
    modalities=(
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=300, grid=(2, 2)),
        ModalityConfig(name="tok_clip_global", kind="grid", vocabulary_size=20, grid=(2, 2)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=40, max_length=8),
    ),
)


@pytest.fixture
def codes():
    """300 codes on a circle: neighbors look alike."""
    angle = torch.arange(300) * 2 * torch.pi / 300
    return F.normalize(torch.stack([angle.cos(), angle.sin(), 0.2 * torch.ones(300)], 1), dim=1)


@pytest.fixture
def tokenizers(codes):
    visual = {"depth": SimpleNamespace(shared_codes_KD=codes), "clip_global": SimpleNamespace(shared_codes_KD=None)}
    return SimpleNamespace(visual=visual)


def tables(model):
    return [block.detach().clone() for table in (model.input_tokens, model.target_tokens) for block in table.per_modality()]


def test_angles_between_codes_are_kept_and_other_tokens_stay_random(tokenizers, codes):
    model, before = FourM(CONFIG, 0), tables(FourM(CONFIG, 0))
    add_codes(model, tokenizers, 1.0, 0)
    after = tables(model)
    centered = F.normalize(codes - codes.mean(0), dim=1)
    for block in (after[0], after[3]):
        found = F.normalize(block, dim=1) @ F.normalize(block, dim=1).T
        assert (found - centered @ centered.T).abs().max() < 6 / WIDTH**0.5  # Johnson-Lindenstrauss, far in the tail
        assert block.square().mean().sqrt() == pytest.approx(STD, rel=1e-4)
    assert not torch.equal(after[0], after[3])  # the sides are independent
    for index in (1, 2, 4, 5):
        assert torch.equal(before[index], after[index])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_share_of_the_variance(tokenizers, share):
    model, other = FourM(CONFIG, 0), FourM(CONFIG, 0)
    before = tables(model)[0]
    for each in (model, other):
        add_codes(each, tokenizers, share, 0)
    found = tables(model)[0]
    assert torch.equal(found, tables(other)[0])  # a function of the seed
    assert found.square().mean().sqrt() == pytest.approx(STD, rel=0.05)
    correlation = (found * before).mean() / (found.square().mean() * before.square().mean()).sqrt()
    assert correlation == pytest.approx((1 - share) ** 0.5, abs=0.05)
