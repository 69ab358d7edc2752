"""Global vectors as 16 tokens, trained as in the pipeline."""

import numpy as np
import pytest
import torch

from fourfold.seeds import numpy_generator, torch_generator
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.formats import dense_format, measure_statistics
from fourfold.tokenizers.measures import measure_tokenizers
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vector_vqvae import VectorVQVAE
from fourfold.tokenizers.networks.vqvae import VQVAEShape
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext

from ..conftest import NUM_SAMPLES, tiny_config

CONFIG = VisualTokenizerConfig(
    vector=VectorMlpConfig(num_blocks=2, width=64, expansion=2),
    codebook_size=8,
    latent_width=4,
    batch_size=32,
    steps=150,
    decoder_steps=30,
    optimizer=OptimizerConfig(kind="adamw", learning_rate=4e-3, weight_decay=0.0),
)


def cosine(found: np.ndarray, truth: np.ndarray) -> float:
    one, other = (values.astype(np.float64) for values in (found, truth))
    return float(((one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)).mean())


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Return vectors of different lengths that encode six independent binary attributes."""
    rng = numpy_generator(0, "vectors")
    kinds = rng.choice([-1.0, 1.0], (600, 6)) + 0.1 * rng.normal(size=(600, 6))
    return (kinds @ rng.normal(size=(6, 24)) * rng.uniform(0.5, 3, (600, 1))).astype(np.float16)


@pytest.fixture(scope="module")
def tokenizer(vectors) -> VisualTokenizer:
    return train_visual_tokenizer(TrainingValues("clip_global", vectors[:400], (4, 4)), CONFIG, RunContext(0))


def test_sixteen_tokens_reconstruct_the_direction_of_unseen_vectors(vectors, tokenizer):
    training, unseen = vectors[:400], vectors[400:]
    tokens = tokenizer.tokens(unseen)
    assert tokens.shape == (200, 16) and tokens.dtype == np.int16 and tokens.min() >= 0 and tokens.max() < 8
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == unseen.shape and decoded.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(decoded.astype(np.float64), axis=-1), 1, atol=2e-3)
    trivial = np.broadcast_to(training.astype(np.float64).mean(0), unseen.shape)
    assert cosine(decoded, unseen) > 0.9 > 0.5 > cosine(trivial, unseen)
    assert cosine(tokenizer.decode(np.roll(tokens, 1, axis=0)), unseen) < 0.5  # it is the tokens that say it
    np.testing.assert_array_equal(tokenizer.tokens(unseen * 2), tokens)


def test_loss_is_one_minus_cosine(vectors):
    values_format = dense_format("clip_global", measure_statistics("clip_global", vectors), 6)
    inputs = values_format.inputs(vectors[:5])
    assert inputs.shape == (5, 24, 1, 1)
    other = values_format.inputs(vectors[5:10])
    assert float(values_format.loss(other, inputs)) == pytest.approx(1 - cosine(vectors[5:10], vectors[:5]), abs=1e-4)
    np.testing.assert_allclose(values_format.inputs(vectors).std((0, 2, 3)), 1, atol=0.01)


def test_all_parts_learn_and_at_the_end_the_decoder_alone(vectors):
    torch.manual_seed(0)
    model, inputs = VectorVQVAE(VQVAEShape(24, 24, 0, (4, 4)), CONFIG), torch.randn(4, 24, 1, 1)
    for decoder_alone, learning in ((True, {"decoder"}), (False, {"decoder", "encoder", "codebook"})):
        model.zero_grad(set_to_none=True)
        model(inputs, model.codebook.noise(4, 1, torch_generator(0, "noise")), decoder_alone).square().mean().backward()
        with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
        assert {name.split(".")[0] for name in with_gradient} == learning


def test_vector_tokenizers_are_trained_saved_and_measured_with_the_others(world, tmp_path):
    few = CONFIG.model_copy(update={"steps": 6, "decoder_steps": 2, "batch_size": 8, "checkpoint_every": 3})
    config = tiny_config().model_copy(update={"visual": {"clip_global": few, "clip": tiny_config().visual["clip"]}})
    tokenizers = train_tokenizers(*world, config, RunContext(0, tmp_path))
    assert tokenizers.grids() == {"tok_clip_global": (4, 4), "tok_clip": (4, 4)}
    assert tokenizers.lengths()["tok_clip_global"] == 16 and tokenizers.vocabulary_sizes()["tok_clip_global"] == 8
    values = world[1].load_column("val", "clip_global")
    tokens = tokenizers.tokens("clip_global", values)
    assert tokens.shape == (NUM_SAMPLES, 16)
    figures = measure_tokenizers(tokenizers, *world)
    assert figures["clip_global/cosine"] == pytest.approx(
        cosine(tokenizers.decode("tok_clip_global", tokens), values), abs=1e-4
    )
    used = sum(len(np.unique(column)) for column in tokens.T)
    assert figures["clip_global/codebook_use"] == pytest.approx(used / (16 * 8))
    np.testing.assert_array_equal(VisualTokenizer.load(tmp_path / "clip_global").tokens(values), tokens)


def test_mlps_are_only_for_vectors_and_vectors_need_mlps():
    with pytest.raises(ValueError, match=r"visual.clip_global has kind vector: set `vector` .* which need it"):
        TokenizersConfig(visual={"clip_global": VisualTokenizerConfig()})
    with pytest.raises(ValueError, match=r"visual.rgb has kind image"):
        TokenizersConfig(visual={"rgb": CONFIG})
