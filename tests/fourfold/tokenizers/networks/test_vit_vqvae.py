"""4M's own VQ-VAE against numbers that the reference computed with the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fourfold.tokenizers.networks.codebook import EuclideanCodebook
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE, ViTVQVAEConfig
from fourfold.tokenizers.released.checkpoint import export_released_tokenizer, load_released_tokenizer
from fourfold.tokenizers.released.names import released_name

REFERENCE = Path(__file__).parents[3] / "reference"
LOSSES = {"vqvae_tiny": F.mse_loss, "vqvae_tiny_semseg": F.cross_entropy, "vqvae_tiny_clip": F.smooth_l1_loss}
CLOSE = {"atol": 5e-5, "rtol": 0}
TRUNK = TrunkConfig(dim=48, depth=1, num_heads=3)
VARIANTS = {
    "plain": {},
    "unit latents": {"unit_latents": True, "dead_code_threshold": 0.5},
    "euclidean": {"codebook": "euclidean"},
    "output blocks": {"output_blocks": True},
    "two tokens a place": {"num_codebooks": 2, "latent_width": 6},
    "classes on a wide grid": {"num_classes": 5, "channels": 4, "image_size": (16, 32)},
    "feature maps": {"feature_map": True, "channels": 7},
    "no MLP at the end": {
        "encoder": TRUNK.model_copy(update={"post_mlp": False}),
        "decoder": TRUNK.model_copy(update={"post_mlp": False}),
    },
}


def read(name: str) -> tuple[ViTVQVAE, dict[str, torch.Tensor]]:
    with np.load(REFERENCE / f"{name}_io.npz") as file:
        arrays = {name: file[name] for name in file.files}
    tensors = {name: torch.tensor(array) if array.dtype.kind in "fi" else array for name, array in arrays.items()}
    return load_released_tokenizer(REFERENCE / f"{name}.safetensors"), tensors


@pytest.mark.parametrize("name", LOSSES)
def test_latents_tokens_and_reconstructions_match_the_reference(name):
    model, arrays = read(name)
    with torch.no_grad():
        torch.testing.assert_close(model.prepare(arrays["input"]), arrays["prepared_input"], atol=1e-6, rtol=0)
        torch.testing.assert_close(model.encoder(model.prepare(arrays["input"])), arrays["encoder_out"], **CLOSE)
        torch.testing.assert_close(model.encode(arrays["input"]), arrays["latents"], **CLOSE)
        reconstruction, quantized = model(arrays["input"])
        assert torch.equal(quantized.tokens, arrays["tokens"])
        torch.testing.assert_close(model.bottleneck.merged(quantized.codes), arrays["quant"], **CLOSE)
        torch.testing.assert_close(reconstruction, arrays["recon"], **CLOSE)
        torch.testing.assert_close(model.reconstruct(arrays["tokens"]), arrays["recon_from_tokens"], **CLOSE)


@pytest.mark.parametrize("name", ["vqvae_tiny", "vqvae_tiny_clip"])
def test_positions_are_resized_for_another_grid_as_in_the_reference(name):
    model, arrays = read(name)
    with torch.no_grad():
        assert torch.equal(model.tokens(arrays["hires/input"]), arrays["hires/tokens"])
        torch.testing.assert_close(model(arrays["hires/input"])[0], arrays["hires/recon"], **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_training_pass_matches_losses_gradients_and_codebook_of_the_reference(name):
    model, arrays = read(name)
    reconstruction, quantized = model(arrays["input"])
    loss, code_loss = LOSSES[name](reconstruction, arrays["input"]), model.code_loss(quantized)
    torch.testing.assert_close(reconstruction.detach(), arrays["train/recon"], **CLOSE)
    torch.testing.assert_close(code_loss.detach(), arrays["train/code_loss"].squeeze(), atol=1e-5, rtol=0)
    torch.testing.assert_close((loss + code_loss).detach(), arrays["train/total_loss"].squeeze(), atol=1e-5, rtol=0)
    (loss + code_loss).backward()
    expected = json.loads(str(arrays["train/grad_norms_json"]))
    norms = {released_name(name): p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx({name: expected[name] for name in norms}, rel=1e-4, abs=1e-7)
    assert {name for name, norm in expected.items() if norm is not None} == set(norms)
    model.update_codebook(arrays["input"], quantized.tokens)
    torch.testing.assert_close(model.bottleneck.table.codes_KD, arrays["train/embed_after"], **CLOSE)
    torch.testing.assert_close(model.bottleneck.table.counts_K, arrays["train/cluster_size_after"], **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_export_keeps_keys_and_values_of_golden_tokenizers(tmp_path, name):
    export_released_tokenizer(load_released_tokenizer(REFERENCE / f"{name}.safetensors"), tmp_path / "again.safetensors")
    golden, again = load_file(REFERENCE / f"{name}.safetensors"), load_file(tmp_path / "again.safetensors")
    assert sorted(golden) == sorted(again)
    assert all(torch.equal(golden[key], again[key]) for key in golden)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_loaded_export_computes_the_same_and_exports_the_same_bytes(tmp_path, changes):
    torch.manual_seed(0)
    settings = {
        "image_size": (16, 16),
        "patch_size": 4,
        "encoder": TRUNK,
        "decoder": TRUNK,
        "latent_width": 8,
        "codebook_size": 11,
    }
    model = ViTVQVAE(ViTVQVAEConfig(**settings | changes)).eval()
    model.bottleneck.table.codes_KD.normal_()
    for parameter in model.decoder.output_blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rows, columns = model.config.grid if model.config.feature_map else model.config.image_size
    inputs = torch.randn(2, model.config.channels, rows, columns)
    inputs = torch.randint(0, 5, (2, rows, columns)) if model.config.num_classes else inputs
    export_released_tokenizer(model, tmp_path / "one.safetensors")
    loaded = load_released_tokenizer(tmp_path / "one.safetensors")
    export_released_tokenizer(loaded, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert loaded.config == model.config
    with torch.no_grad():
        tokens = model.tokens(inputs)
        assert torch.equal(loaded.tokens(inputs), tokens)
        torch.testing.assert_close(loaded.reconstruct(tokens), model(inputs)[0], atol=1e-5, rtol=0)
    places = (2, 2, *model.config.grid) if model.config.num_codebooks == 2 else (2, *model.config.grid)
    assert tokens.shape == places and len(tokens.unique()) > 1


def test_euclidean_codes_are_averaged_sums_over_averaged_counts():
    torch.manual_seed(0)
    table = EuclideanCodebook(4, 3, decay=0.5)
    table.codes_KD.normal_()
    table.sums_KD.copy_(table.codes_KD)
    table.counts_K.fill_(1.0)
    latents = torch.randn(50, 3)
    nearest = torch.cdist(latents, table.codes_KD).argmin(1)
    assert torch.equal(table.match(latents), nearest)
    sums = torch.stack([latents[nearest == code].sum(0) for code in range(4)]) * 0.5 + table.codes_KD * 0.5
    counts = torch.bincount(nearest, minlength=4) * 0.5 + 0.5
    table.update(latents, nearest)
    torch.testing.assert_close(table.codes_KD, sums / counts[:, None], atol=1e-4, rtol=1e-4)


def test_inputs_that_patches_do_not_divide_raise():
    model = ViTVQVAE(ViTVQVAEConfig(image_size=(16, 16), patch_size=4, encoder=TRUNK, decoder=TRUNK))
    with pytest.raises(ValueError, match="patches of 4"):
        model.encode(torch.zeros(1, 3, 18, 16))
