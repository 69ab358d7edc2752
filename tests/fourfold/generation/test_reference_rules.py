"""Rules of the reference's generation that no golden file covers, against separate plain computations."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fourfold.generation.conditions import visible_batch, with_targets
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import SpecialTokenIds, generate_tokens
from fourfold.generation.grids import temperatures, token_schedule
from fourfold.generation.sampling import sample_with_confidence
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

SPECIAL = SpecialTokenIds(end=3, sentinels=(4, 5, 6))
CONFIG = ModelConfig(
    modalities=(
        ModalityConfig(name="rgb@224", kind="pixels", grid=(2, 2)),
        ModalityConfig(name="rgb@448", kind="pixels", grid=(4, 4)),
        ModalityConfig(name="tok_depth@448", kind="grid", vocabulary_size=16, grid=(4, 4)),
        ModalityConfig(name="t5_caption", kind="vectors", vector_width=5, max_length=6),
    ),
    dim=16, encoder_depth=1, decoder_depth=1, num_heads=2, patch_size=4, embedding_std=0.7,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> FourM:
    found = FourM(CONFIG, seed=3).eval()
    torch.nn.init.normal_(found.vector_projection.bias, generator=torch.Generator().manual_seed(0))
    return found


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(6.0, 0, 0.8), (0.3, 0, 0.8), (2.0, 4, 0.7), (3.0, 4, 1.0)])
def test_nucleus_is_computed_before_temperature(temperature, top_k, top_p):
    logits = torch.tensor([2.5, 2.0, 1.8, 1.0, 0.5, 0.0, -1.0, -3.0])
    allowed, mass = [], 0.0
    best = range(len(logits))[: top_k or None]  # they are sorted
    shares = logits[: len(best)].softmax(-1).tolist()
    for index in best:
        allowed += [index] if mass <= top_p else []
        mass += shares[index]
    expected = torch.zeros(len(logits))
    expected[allowed] = (logits[allowed] / temperature).softmax(-1)
    uniform = (torch.arange(5000) + 0.5) / 5000
    ids, confidence = sample_with_confidence(logits.expand(5000, -1), uniform, temperature, top_k, top_p)
    torch.testing.assert_close(ids.bincount(minlength=len(logits)) / 5000, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(confidence, expected[ids])


def test_ties_with_the_last_of_top_k_are_kept():
    logits = torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0, 2.0]).expand(600, -1)
    ids, _ = sample_with_confidence(logits, torch.arange(600) / 600, temperature=1.0, top_k=2)
    assert set(ids.tolist()) == {1, 2, 3, 5}


@pytest.mark.parametrize("tokens", [3, 16, 51, 196, 255, 784])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 12, 25])
def test_cosine_steps_round_halves_as_in_the_reference(tokens, steps):
    share = [0.5 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)]
    sizes = [round(tokens * (a - b)) for a, b in pairwise(share)]
    sizes.append(tokens - sum(sizes))
    if min(sizes) >= 0:  # where the reference would fix fewer than no tokens, ours stops at none
        assert token_schedule(tokens, steps, "cosine") == sizes
    assert sum(token_schedule(tokens, steps, "cosine")) == tokens and min(token_schedule(tokens, steps, "cosine")) >= 0


@pytest.mark.parametrize(("tokens", "steps", "power"), [(196, 49, 0.5), (196, 25, 2.0), (16, 16, 0.5), (784, 8, 1.0)])
def test_onex_temperatures_follow_their_formula(tokens, steps, power):
    sizes = np.array(token_schedule(tokens, steps, "linear"))
    curve = np.linspace(1, 100, tokens) ** -power
    curve = (curve - curve.min()) / (curve.max() - curve.min())
    expected = 0.5 + (6.0 - 0.5) * (1 - sizes.cumsum() / tokens) * curve[: len(sizes)]
    np.testing.assert_allclose(temperatures(6.0, sizes.tolist(), "onex", 0.5, power), expected, atol=1e-9)


def test_emptied_vectors_project_to_the_bias(model):
    vectors = torch.randn(1, 3, 5)
    settings = TargetConfig(guidance=3.0)
    found = generate_tokens(
        model,
        {"t5_caption": vectors},
        ["tok_depth@448"],
        [0],
        GenerationConfig(grids=settings, show_sentinel=True),
        SPECIAL,
    )
    index, asked = CONFIG.index("tok_depth@448"), torch.arange(16)[None]
    batch = visible_batch({"t5_caption": vectors}, CONFIG, 1, torch.device("cpu"))
    empty = visible_batch({"t5_caption": torch.full((1, 1, 5), 1e-38)}, CONFIG, 1, torch.device("cpu"))
    with torch.no_grad():
        shown = model.encode(batch)
        place = model.positions(torch.tensor([CONFIG.index("t5_caption")]), torch.tensor([0]), "input")
        x = model.vector_projection(torch.zeros(1, 5)) + place
        torch.testing.assert_close(model._embed_inputs(empty, model._input_packing(empty)[1])[1], x)
        logits = [
            model.logits(model.decode(with_targets(given, index, asked), model.encode(given)), "tok_depth@448")
            for given in (batch, empty)
        ]
    expected = logits[1] + 3.0 * (logits[0] - logits[1])
    assert shown.features_TD.shape[0] == 3 and torch.equal(found["tok_depth@448"], expected.argmax(-1))


def test_images_of_two_resolutions_are_shown_together_or_alone(model):
    draw = torch.Generator().manual_seed(1)
    small = torch.randint(256, (2, 8, 8, 3), generator=draw, dtype=torch.uint8)
    large = torch.randint(256, (2, 16, 16, 3), generator=draw, dtype=torch.uint8)

    def features(**conditions: torch.Tensor) -> torch.Tensor:
        given = {f"rgb@{size}": image for size, image in zip(("224", "448"), conditions.values(), strict=False)}
        given = given if "large" not in conditions or "small" in conditions else {"rgb@448": conditions["large"]}
        with torch.no_grad():
            return model.encode(visible_batch(given, CONFIG, 2, torch.device("cpu"))).features_BND

    assert features(small=small).shape[1] == 4 and features(large=large).shape[1] == 16
    both, other = features(small=small, large=large), features(small=small, large=large.flip(1))
    assert both.shape[1] == 20 and not torch.allclose(both, other)
    torch.testing.assert_close(both, features(small=small, large=large))
