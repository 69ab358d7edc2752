"""Options of released tokenizers that no golden file covers, against plain computations from the file's keys."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fourfold.model.released.files import image_size, image_size_value, read_released, write_released
from fourfold.seeds import torch_generator
from fourfold.tokenizers.networks.diffusion import NoiseConfig
from fourfold.tokenizers.networks.divae import DiVAE, DiVAEConfig
from fourfold.tokenizers.networks.memcodes import Memcodes
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE, ViTVQVAEConfig, VQConfig
from fourfold.tokenizers.released.checkpoint import export_released_tokenizer, load_released_tokenizer

from .plain_reference import Plain

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
TRUNK = TrunkConfig(dim=24, depth=1, num_heads=3)
MLP = VectorMlpConfig(num_blocks=2, width=12, expansion=3)
SMALL = {"image_size": (16, 16), "patch_size": 4, "encoder": TRUNK, "latent_width": 8, "codebook_size": 11}
GLOBAL_VECTORS = ViTVQVAEConfig(
    channels=10, encoder=MLP, decoder=MLP, codebook="memcodes", codebook_size=7, latent_width=32, num_codebooks=16
)
TINY_UNET = UNetConfig(width=32, multipliers=(1, 2), blocks_per_level=2, attention_at=(2,))
DIFFUSION = DiVAEConfig(**SMALL | {"image_size": (16, 24)}, decoder=TINY_UNET)


def exported(config: VQConfig, folder: Path) -> tuple[ViTVQVAE | DiVAE, Path]:
    """Return a model with random weights, also in layers that start at zero, and its released file."""
    torch.manual_seed(0)
    model = (DiVAE(config) if isinstance(config, DiVAEConfig) else ViTVQVAE(config)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "position" not in name and "counts" not in name:
                tensor.add_(torch.randn(tensor.shape) * (1 if "codes" in name else 0.1))
    path = folder / "released.safetensors"
    export_released_tokenizer(model, path)
    return model, path


def changed(path: Path, **values) -> Path:
    """Write the file again with changed metadata."""
    tensors, metadata = read_released(path)
    write_released(tensors, metadata | values, path.with_name("changed.safetensors"))
    return path.with_name("changed.safetensors")


def test_global_vectors_match_a_plain_computation(tmp_path):
    _, path = exported(GLOBAL_VECTORS, tmp_path)
    loaded, vectors = load_released_tokenizer(path), torch.randn(5, 10)
    ids, reconstruction = Plain(load_file(path)).vector_tokenizer(vectors, num_blocks=2)
    with torch.no_grad():
        tokens_BN = loaded.vector_tokens(vectors)
        assert tokens_BN.shape == (5, 16) and torch.equal(tokens_BN, ids)
        torch.testing.assert_close(loaded.reconstruct_vectors(tokens_BN), reconstruction, **CLOSE)
        torch.testing.assert_close(loaded(vectors[:, :, None, None])[0].flatten(1), reconstruction, **CLOSE)


def test_mlp_with_memcodes_has_the_reference_keys(tmp_path):
    _, path = exported(GLOBAL_VECTORS, tmp_path)
    sides = [
        f"{side}.{layer}.{part}"
        for side in ("encoder", "decoder")
        for layer in (
            "linear_in",
            "linear_out",
            *(f"blocks.{i}.block.{j}" for i in (0, 1) for j in (0, 2)),
            "layernorms.0",
            "layernorms.1",
        )
        for part in ("weight", "bias")
    ]
    ends = [f"{name}.{part}" for name in ("quant_proj", "post_quant_proj") for part in ("weight", "bias")]
    assert sorted(load_file(path)) == sorted([*sides, *ends, "quantize.codes", "quantize.to_k.weight", "quantize.to_v.weight"])
    assert read_released(path)[1]["enc_type"] == "BottleneckMLP/B_2-Wi_12-E_3"
    assert VectorMlpConfig.from_name("BottleneckMLP/B_6-Wi_1024") == VectorMlpConfig()


@pytest.mark.parametrize(
    ("heads", "unit", "cosine"), [(1, True, True), (2, False, True), (3, True, True), (1, False, False), (2, False, False)]
)
def test_averaged_codebooks_match_a_plain_computation(tmp_path, heads, unit, cosine):
    config = ViTVQVAEConfig(
        **SMALL, decoder=TRUNK, num_codebooks=heads, unit_latents=unit, codebook="cosine" if cosine else "euclidean"
    )
    model, path = exported(config, tmp_path)
    latents_BDhw = torch.randn(2, 8, 4, 4)
    rows = latents_BDhw.permute(0, 2, 3, 1).reshape(-1, 8)
    ids, codes, commitment = Plain(load_file(path)).averaged(rows, heads, unit, cosine)
    with torch.no_grad():
        quantized = load_released_tokenizer(path).bottleneck(latents_BDhw)
        tokens = quantized.tokens if heads > 1 else quantized.tokens[:, None]
        assert torch.equal(tokens.movedim(1, 3).reshape(-1, heads), ids)
        merged = model.bottleneck.merged(quantized.codes).permute(0, 2, 3, 1).reshape(-1, 8)
        torch.testing.assert_close(merged, codes, **CLOSE)
        torch.testing.assert_close(quantized.commitment, commitment, **CLOSE)


def test_output_blocks_are_convnext_blocks_after_the_decoder(tmp_path):
    _, path = exported(ViTVQVAEConfig(**SMALL, decoder=TRUNK, output_blocks=True), tmp_path)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = Plain(load_file(path))
        expected = plain.convnext("decoder.out_conv.1", plain.convnext("decoder.out_conv.0", image))
        torch.testing.assert_close(load_released_tokenizer(path).decoder.output_blocks(image), expected, **CLOSE)


def test_diffusion_decoder_matches_a_plain_computation_from_released_keys(tmp_path):
    _, path = exported(DIFFUSION, tmp_path)
    image, step, codes = torch.randn(2, 3, 16, 24), torch.tensor([3, 999]), torch.randn(2, 8, 4, 6)
    expected = Plain(load_file(path)).unet(image, step, codes, patch=4)
    with torch.no_grad():
        torch.testing.assert_close(load_released_tokenizer(path).decoder(image, step, codes), expected, **CLOSE)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("betas", "predicts", "zero"),
    [("linear", "clean", True), ("cosine", "velocity", True), ("cosine", "clean", False), ("linear", "noise", False)],
)
def test_decoding_matches_ddim_for_each_schedule_and_prediction(tmp_path, betas, predicts, zero, clip):
    noise = NoiseConfig(betas=betas, predicts=predicts, zero_terminal_snr=zero)
    _, path = exported(DIFFUSION.model_copy(update={"noise": noise, "clip_sample": clip}), tmp_path)
    loaded, plain = load_released_tokenizer(path), Plain(load_file(path))
    tokens = torch.randint(11, (1, 4, 6), generator=torch.Generator().manual_seed(0))
    found = loaded.reconstruct(tokens, seeds=[5], num_decoding_steps=4)
    kept = signal(betas, zero)
    codes = plain.get("quantize._codebook.embed")[tokens].permute(0, 3, 1, 2)
    x = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(5))
    for step in (999, 749, 499, 249):
        now, after = kept[step], kept[step - 250] if step > 250 else torch.tensor(1.0)
        given = plain.unet(x, torch.tensor([step]), codes, patch=4)
        if predicts == "clean":
            clean, rest = given, (x - now.sqrt() * given) / (1 - now).sqrt()
        elif predicts == "noise":
            clean, rest = (x - (1 - now).sqrt() * given) / now.sqrt(), given
        else:
            clean, rest = now.sqrt() * x - (1 - now).sqrt() * given, now.sqrt() * given + (1 - now).sqrt() * x
        x = after.sqrt() * (clean.clamp(-1, 1) if clip else clean) + (1 - after).sqrt() * rest
    torch.testing.assert_close(found, x, atol=1e-3, rtol=1e-3)


def signal(betas: str, zero: bool) -> torch.Tensor:
    """Return ᾱ of each of 1000 steps, in float64 until the end."""
    if betas == "linear":
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    else:
        share = torch.cos((torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - share[1:] / share[:-1]).clamp(max=0.999)
    root = (1 - beta).cumprod(0).sqrt()
    if zero:  # Lin et al., algorithm 1: the last step has no signal, the first keeps its own
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return (root**2).float()


def test_default_diffusion_decoder_has_the_released_layout():
    with torch.device("meta"):
        model = DiVAE(DiVAEConfig(encoder=TRUNK))
    from fourfold.tokenizers.released.names import released_name

    shapes = {
        released_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items() if name.startswith("decoder")
    }
    assert shapes["decoder.input_blocks.0.0.weight"] == (256, 3 * 16 + 32, 3, 3)
    assert shapes["decoder.out.2.weight"] == (48, 256, 3, 3)
    halving = [key for key in shapes if key.endswith(".op.weight")]
    assert halving == [f"decoder.input_blocks.{i}.0.op.weight" for i in (4, 8, 12)]
    doubling = [key for key in shapes if key.endswith("conv.weight")]
    assert doubling == [
        "decoder.output_blocks.3.2.conv.weight",
        "decoder.output_blocks.7.2.conv.weight",
        "decoder.output_blocks.11.1.conv.weight",
    ]
    attention = [key.removesuffix(".qkv.weight").removeprefix("decoder.") for key in shapes if key.endswith(".qkv.weight")]
    levels = [f"input_blocks.{i}.1" for i in (9, 10, 11, 13, 14, 15)] + ["middle_block.1"]
    assert attention == levels + [f"output_blocks.{i}.1" for i in range(8)]


@pytest.mark.parametrize(
    "config",
    [
        GLOBAL_VECTORS,
        DIFFUSION,
        DIFFUSION.model_copy(update={"clip_sample": True}),
        ViTVQVAEConfig(**SMALL, decoder=TRUNK, num_codebooks=2, codebook="memcodes"),
        ViTVQVAEConfig(**SMALL, decoder=TRUNK, num_codebooks=1, codebook="memcodes"),
        ViTVQVAEConfig(**SMALL, decoder=TRUNK, imagenet_standardized=True, code_replacement="split"),
        ViTVQVAEConfig(**SMALL, decoder=TRUNK, decoder_patch_size=8, encoder_image_size=(8, 8), decoder_image_size=(32, 16)),
    ],
    ids=["vectors", "diffusion", "clipped diffusion", "memcodes", "one table", "standardized", "other sizes"],
)
def test_loading_and_exporting_keeps_bytes_and_tokens(tmp_path, config):
    model, path = exported(config, tmp_path)
    loaded = load_released_tokenizer(path)
    export_released_tokenizer(loaded, tmp_path / "again.safetensors")
    assert loaded.config == model.config
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    size = (1, 1) if config is GLOBAL_VECTORS else config.image_size
    inputs = torch.randn(2, config.channels, *size)
    with torch.no_grad():
        tokens = model.tokens(inputs)
        assert torch.equal(loaded.tokens(inputs), tokens) and len(tokens.unique()) > 1
        if isinstance(model, ViTVQVAE):
            torch.testing.assert_close(model.reconstruct(tokens), model(inputs)[0], **CLOSE)


def test_imagenet_standardization_is_undone_before_the_encoder(tmp_path):
    model, _ = exported(ViTVQVAEConfig(**SMALL, decoder=TRUNK, imagenet_standardized=True), tmp_path)
    pixels = torch.rand(1, 3, 16, 16)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    standardized = (pixels - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(model.prepare(standardized), pixels * 2 - 1, atol=1e-6, rtol=0)


def test_memcodes_in_training_match_the_hard_gumbel_softmax_of_torch():
    memcodes, x = Memcodes(5, 6, 2), torch.randn(3, 6, 2, 2, requires_grad=True)
    weights = torch.randn(3, 6, 2, 2)
    quantized = memcodes(x, torch.Generator().manual_seed(7))
    (quantized.straight_through * weights).sum().backward()
    ours = [x.grad.clone(), *(parameter.grad.clone() for parameter in memcodes.parameters())]
    x.grad = None
    memcodes.zero_grad()
    queries = x.flatten(2).unflatten(1, (2, 3)).transpose(2, 3) * 3**-0.5
    keys = torch.einsum("nkd,nde->nke", memcodes.codes_NKd, memcodes.to_keys_Ndd)
    values = torch.einsum("nkd,nde->nke", memcodes.codes_NKd, memcodes.to_values_Ndd)
    torch.manual_seed(7)
    chosen = F.gumbel_softmax(torch.einsum("bntd,nkd->bntk", queries, keys), tau=1.0, hard=True)
    mixed = torch.einsum("bntk,nkd->bntd", chosen, values).transpose(2, 3).reshape(3, 6, 2, 2)
    (mixed * weights).sum().backward()
    torch.testing.assert_close(quantized.straight_through, mixed, **CLOSE)
    assert torch.equal(quantized.tokens.flatten(2), chosen.argmax(-1))
    torch.testing.assert_close(ours, [x.grad, *(parameter.grad for parameter in memcodes.parameters())], **CLOSE)
    assert quantized.commitment == 0


def test_memcodes_are_deterministic_without_a_generator():
    memcodes, x = Memcodes(50, 8, 4), torch.randn(2, 8, 3, 3)
    assert torch.equal(memcodes(x).tokens, memcodes(x).tokens)
    drawn = [memcodes(x, torch_generator(seed, "noise")).tokens for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (GLOBAL_VECTORS, {"quant_type": "lfq"}, "quantizer is 'lfq'; supported: 'lucid'"),
        (GLOBAL_VECTORS, {"enc_type": "MLP/B_6-Wi_1024"}, "encoder is 'MLP/B_6-Wi_1024'. Known: vit_t"),
        (DIFFUSION, {"dec_type": "uvit_b_p4_f16"}, "decoder is 'uvit_b_p4_f16'"),
        (DIFFUSION, {"dec_type": "unet_big"}, "only supported diffusion decoder is 'unet_patched'"),
        (
            DIFFUSION,
            {"prediction_type": "flow"},
            "prediction_type .* 'flow'; supported: 'sample', 'epsilon', 'v_prediction'",
        ),
        (
            DIFFUSION,
            {"beta_schedule": "shifted_cosine:2.0"},
            "beta_schedule .* 'shifted_cosine:2.0'; supported: 'linear', 'squaredcos",
        ),
        (DIFFUSION, {"dec_type": "vit_b_dec"}, "has no tensors of the decoder, but its metadata names 'vit_b_dec'"),
        (DIFFUSION, {"code_replacement_policy": "never"}, "code_replacement_policy is 'never'; supported: 'batch_random'"),
        (DIFFUSION, {"image_size": "big"}, "image_size is 'big'; one positive number or a pair"),
        (DIFFUSION, {"quant_type": "memcodes"}, "lacks quantize.codes"),
    ],
)
def test_unsupported_files_raise_an_error_that_names_the_option(tmp_path, config, values, message):
    _, path = exported(config, tmp_path)
    with pytest.raises(ValueError, match=message):
        load_released_tokenizer(changed(path, **values))


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("encoder.pos_emb", None, r"lacks encoder\.pos_emb\. Download"),
        (
            "decoder.extra.weight",
            torch.ones(24),
            r"has decoder\.extra\.weight, which its metadata does not allow\. Give",
        ),
        ("quant_proj.bias", torch.ones(9), r"quant_proj\.bias has the shape \(9,\); its metadata implies \(8,\)"),
    ],
)
def test_tensors_that_do_not_match_the_metadata_raise_in_one_line(tmp_path, key, tensor, message):
    _, path = exported(ViTVQVAEConfig(**SMALL, decoder=TRUNK), tmp_path)
    tensors, metadata = read_released(path)
    tensors = {name: value for name, value in tensors.items() if name != key} | ({} if tensor is None else {key: tensor})
    write_released(tensors, metadata, path)
    with pytest.raises(ValueError, match=message) as error:
        load_released_tokenizer(path)
    assert "\n" not in str(error.value)


def test_folder_of_a_model_hub_is_loaded_with_its_configuration(tmp_path):
    model, path = exported(GLOBAL_VECTORS, tmp_path)
    tensors, metadata = read_released(path)
    (tmp_path / "hub").mkdir()
    write_released(tensors, {"format": "pt"}, tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "config.json").write_text(json.dumps(metadata))
    assert load_released_tokenizer(tmp_path / "hub").config == model.config


def test_settings_without_a_released_equivalent_are_not_exported(tmp_path):
    other_groups = DIFFUSION.model_copy(update={"decoder": TINY_UNET.model_copy(update={"num_groups": 8})})
    with pytest.raises(ValueError, match="32 normalization groups"):
        export_released_tokenizer(DiVAE(other_groups), tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="width 6 cannot be cut into 4 equal slices"):
        Memcodes(5, 6, 4)


@pytest.mark.parametrize(("stored", "size"), [(224, (224, 224)), ([16, 32], (16, 32)), ((8, 8), (8, 8))])
def test_image_sizes_are_one_number_or_a_pair(stored, size):
    assert image_size(stored) == size
    assert image_size(image_size_value(size)) == size


@pytest.mark.parametrize("wrong", ["224", (1, 2, 3), 0, -5, None, (1.5, 2)])
def test_other_image_sizes_raise(wrong):
    with pytest.raises(ValueError, match="one positive number or a pair"):
        image_size(wrong)


def test_ids_may_be_flat_and_values_arrays_of_bytes(tmp_path):
    for config in (ViTVQVAEConfig(**SMALL | {"image_size": (16, 24)}, decoder=TRUNK), DIFFUSION):
        model, _ = exported(config, tmp_path)
        image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            tokens = model.tokens(image.numpy())
            assert torch.equal(tokens, model.tokens(image / 127.5 - 1)) and tokens.shape == (2, 4, 6)
            seeds = {"seeds": [1, 2], "num_decoding_steps": 2} if isinstance(model, DiVAE) else {}
            expected = model.reconstruct(tokens, **seeds)
            for same in (tokens.flatten(1), tokens.flatten(1).numpy().astype("int16"), tokens.int()):
                assert torch.equal(model.reconstruct(same, **seeds), expected)
            for wrong, message in (
                (tokens.flatten(1)[:, :7], "Got 7 tokens of an image; allowed: 24 or a square"),
                (tokens + 11, "allowed: 0 to 10"),
            ):
                with pytest.raises(ValueError, match=message):
                    model.reconstruct(wrong, **seeds)
