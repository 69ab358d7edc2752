"""The convolutional VQ-VAE: shapes, receptive field, gradients and scales."""

import numpy as np
import pytest
import torch

from fourfold.seeds import numpy_generator, torch_generator
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vqvae import VQVAE, VQVAEShape
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer
from fourfold.training.run_context import RunContext

CONFIG = VisualTokenizerConfig(codebook_size=16, latent_width=4, width=16, fine_width=8)


def network(patch: int, channels: int = 3) -> VQVAE:
    torch.manual_seed(0)
    model = VQVAE(VQVAEShape(channels, channels, patch, (4, 6)), CONFIG)
    for parameter in model.parameters():  # the residual branches start at zero
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.codebook.initialize(torch.randn(200, 4), torch_generator(0, "codes"))
    return model.eval()


@pytest.mark.parametrize("patch", [1, 2, 8])
def test_inputs_become_grid_tokens_and_are_decoded_to_their_size(patch):
    model = network(patch)
    inputs_BCHW = torch.randn(2, 3, 4 * patch, 6 * patch)
    assert model.encode(inputs_BCHW).shape == (2, 4, 6, 4)
    tokens_Bhw = model.tokens(inputs_BCHW)
    assert tokens_Bhw.shape == (2, 4, 6) and tokens_Bhw.dtype == torch.int64
    assert model.reconstruct(tokens_Bhw).shape == inputs_BCHW.shape


def test_reconstruction_of_tokens_equals_the_forward_pass():
    model, inputs_BCHW = network(8), torch.randn(2, 3, 32, 48)
    reconstruction_BCHW, quantized = model(inputs_BCHW)
    assert torch.equal(model.tokens(inputs_BCHW), quantized.tokens)
    torch.testing.assert_close(model.reconstruct(quantized.tokens), reconstruction_BCHW)


def test_token_depends_only_on_its_patch_and_half_a_patch_around():
    model, inputs_BCHW = network(8), torch.randn(1, 3, 32, 48, requires_grad=True)
    model.encode(inputs_BCHW)[0, 1, 2].sum().backward()
    rows, columns = inputs_BCHW.grad[0].abs().sum(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 19, 12, 27)


def test_encoder_and_decoder_learn_through_the_codebook():
    model = network(8)
    reconstruction_BCHW, _ = model(torch.randn(1, 3, 32, 48))
    reconstruction_BCHW.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_grid_that_does_not_fit_raises():
    with pytest.raises(ValueError, match="30 × 48 values cannot be cut into 4 × 6 square tokens"):
        VQVAEShape.of(torch.zeros(1, 3, 30, 48), (4, 6))
    with pytest.raises(ValueError, match="3 × 3 pixels; allowed: 1 or an even number"):
        VQVAEShape.of(torch.zeros(1, 3, 12, 18), (4, 6))


def test_signal_has_unit_scale_at_initialization():
    torch.manual_seed(0)
    model = VQVAE(VQVAEShape(6, 6, 8, (8, 8)), VisualTokenizerConfig())
    latents_BhwD = model.encode(torch.randn(8, 6, 64, 64))
    torch.testing.assert_close(latents_BhwD.norm(dim=-1), torch.ones(8, 8, 8))
    over_samples = model.decode(latents_BhwD).std(dim=0).mean()  # so that biases do not count
    assert 0.1 < over_samples < 3


def test_latents_and_codes_have_the_same_scale():
    model, inputs_BCHW = network(8), torch.randn(8, 3, 32, 48)
    latents_BhwD = model.encode(inputs_BCHW)
    model.codebook.initialize(latents_BhwD, torch_generator(0, "codes"))
    for vectors in (latents_BhwD, model.codebook.codes_KD):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


def test_vit_of_any_size_works_as_encoder_and_decoder(tmp_path):
    rng, vit = numpy_generator(0, "blocks"), TrunkConfig(dim=32, depth=1, num_heads=2)
    blocks = rng.integers(0, 256, (6, 3)).astype(np.uint8)[rng.integers(6, size=(40, 4, 4))].repeat(4, 1).repeat(4, 2)
    errors = []
    for steps in (6, 60):
        config = CONFIG.model_copy(
            update={"vit": vit, "unquantized_steps": steps // 2, "steps": steps, "decoder_steps": 2, "batch_size": 20}
        )
        tokenizer = train_visual_tokenizer(TrainingValues("rgb", blocks, (4, 4)), config, RunContext(0))
        tokens = tokenizer.tokens(blocks)
        errors.append(((tokenizer.decode(tokens).astype(float) - blocks) ** 2).mean())
    assert tokens.shape == (40, 16) and len(np.unique(tokens)) > 3
    assert errors[1] < 0.5 * errors[0]
    tokenizer.save(tmp_path)
    loaded = VisualTokenizer.load(tmp_path)
    np.testing.assert_array_equal(loaded.tokens(blocks), tokens)
    assert loaded.config.vit == vit and "vit" not in VisualTokenizerConfig().model_dump()
