"""Super-resolution: tokens at 448 pixels from tokens at 224 pixels (4M, arXiv 2312.06647 §4)."""

import pytest
import torch

from fourfold.generation.conditions import MISSING, visible_batch, with_targets
from fourfold.generation.config import find_preset
from fourfold.generation.decoding import SpecialTokenIds, generate_tokens
from fourfold.generation.grids import token_schedule
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

SPECIAL = SpecialTokenIds(end=3, sentinels=(4, 5, 6))
FINE = "tok_rgb@448"
CONFIG = ModelConfig(
    modalities=(
        ModalityConfig(name="tok_rgb@224", kind="grid", vocabulary_size=13, grid=(14, 14)),
        ModalityConfig(name=FINE, kind="grid", vocabulary_size=13, grid=(28, 28)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=40, max_length=12),
    ),
    dim=16, encoder_depth=1, decoder_depth=1, num_heads=2, embedding_std=0.7,
)  # fmt: skip
GREEDY = find_preset("super_resolution").grids.model_copy(update={"temperature": 0.0, "guidance": 1.0})
PRESET = find_preset("super_resolution")
SURE = PRESET.model_copy(update={"grids": GREEDY})


@pytest.fixture(scope="module")
def model() -> FourM:
    return FourM(CONFIG, seed=4).eval()


@pytest.fixture(scope="module")
def coarse() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    captions = torch.randint(7, 40, (2, 5), generator=generator)
    return {"tok_rgb@224": torch.randint(13, (2, 196), generator=generator), "caption": captions}


def test_preset_has_eight_cosine_steps_of_maskgit():
    assert (PRESET.grids.order, PRESET.grids.steps, PRESET.grids.schedule) == ("maskgit", 8, "cosine")
    assert token_schedule(784, 8, "cosine") == [30, 85, 127, 150, 150, 127, 85, 30]


def by_hand(model: FourM, known: dict[str, torch.Tensor], row: int, tokens: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """MaskGIT (arXiv 2202.04200 §3.2) for one sample: predict all missing tokens, keep the most confident, repeat."""
    tokens = tokens.clone()
    for size in sizes:
        left = (tokens == MISSING).nonzero()[:, 0]
        shown = {name: value[row : row + 1] for name, value in known.items()}
        shown |= {FINE: tokens[None]} if len(left) < 784 else {}
        batch = with_targets(visible_batch(shown, CONFIG, 1, torch.device("cpu")), CONFIG.index(FINE), left[None])
        with torch.no_grad():
            probability, ids = model.logits(model.decode(batch, model.encode(batch)), FINE)[0].softmax(-1).max(-1)
        kept = probability.argsort(descending=True, stable=True)[:size]
        tokens[left[kept]] = ids[kept]
    return tokens


def test_large_grid_is_filled_as_in_the_paper(model, coarse):
    found = generate_tokens(model, coarse, [FINE], [0, 1], SURE, SPECIAL)[FINE]
    assert found.shape == (2, 784)
    nothing = torch.full((784,), MISSING)
    for row in range(2):
        assert found[row].tolist() == by_hand(model, coarse, row, nothing, token_schedule(784, 8, "cosine")).tolist()


def test_given_tokens_of_the_large_grid_shorten_the_schedule(model, coarse):
    fine = torch.full((2, 784), MISSING)
    fine[:, 100:342] = torch.arange(242) % 13  # as many as the first three steps
    found = generate_tokens(model, coarse | {FINE: fine}, [FINE], [0, 1], SURE, SPECIAL)[FINE]
    for row in range(2):
        assert found[row].tolist() == by_hand(model, coarse, row, fine[row], [150, 150, 127, 85, 30]).tolist()


def test_sampled_large_grid_depends_on_its_seed_but_not_on_the_batch(model, coarse):
    found = generate_tokens(model, coarse, [FINE], [5, 6], PRESET, SPECIAL)[FINE]
    alone = generate_tokens(model, {name: value[1:] for name, value in coarse.items()}, [FINE], [6], PRESET, SPECIAL)[FINE]
    assert found[1].tolist() == alone[0].tolist()
    other = generate_tokens(model, coarse, [FINE], [5, 7], PRESET, SPECIAL)[FINE]
    assert other[0].tolist() == found[0].tolist()
    assert other[1].tolist() != found[1].tolist()
