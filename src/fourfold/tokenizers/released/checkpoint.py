"""Import and export of tokenizers in the file layout of 4M's release (apple/ml-4m).

Supported: VQ-VAEs with ViTs (images, feature maps, segmentation) or MLPs (global vectors, poses) on both sides, and
those whose decoder is a diffusion U-Net. Everything else (UViT and ControlNet decoders, plain MLPs) raises ValueError:
nothing is loaded approximately.
"""

import logging
import math
import re
from pathlib import Path
from typing import Any

import torch

from fourfold.model.released.files import (
    Tensors,
    check_tensors,
    check_weights,
    image_size,
    image_size_value,
    lacking,
    naming,
    read_metadata,
    read_released,
    released_bytes,
    warn_of_nonfinite,
)
from fourfold.storage import write_bytes
from fourfold.tokenizers.networks.diffusion import BETAS, PREDICTIONS, NoiseConfig
from fourfold.tokenizers.networks.divae import DiVAE, DiVAEConfig
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE, ViTVQVAEConfig, VQConfig
from fourfold.tokenizers.released.names import INITIALIZED, released_name, unet_of

logger = logging.getLogger(__name__)
# Released files name trunks instead of storing the number of heads: name without `_enc` or `_dec` → heads.
HEADS = {"vit_t": 3, "vit_s": 8, "vit_b": 12, "vit_l": 16}
REFERENCE_TRUNKS = {"vit_s": (512, 8, 8), "vit_b": (768, 12, 12), "vit_l": (1024, 24, 16)}  # width, depth, heads
OUR_TRUNK = re.compile(r"vit_heads(\d+)_(?:enc|dec)")  # the name that we give to all other trunks
UNET_NAME = "unet_patched"
QUANTIZER = (("quant_type", "lucid"), ("code_replacement_policy", "batch_random"))  # and what a missing key means
REPLACEMENTS = {"batch_random": "random", "linde_buzo_gray": "split"}  # released name → our name
# Diffusion: key in released files → our field, default where a file lacks the key, our names → released names
DIFFUSION = {
    "beta_schedule": ("betas", "squaredcos_cap_v2", BETAS),
    "prediction_type": ("predicts", "v_prediction", PREDICTIONS),
}


def load_released_tokenizer(
    path: Path | str, encoder_heads: int | None = None, decoder_heads: int | None = None
) -> ViTVQVAE | DiVAE:
    """Return the tokenizer of a released safetensors file, in evaluation mode. NaN or infinity in its weights is a warning.

    Args:
        path: the file, or the folder in which a model hub keeps it.
        encoder_heads: number of heads of a ViT encoder whose name is not in `HEADS`.
        decoder_heads: the same for the decoder.

    Raises:
        ValueError: the architecture is not supported, or the tensors do not match the metadata. The message names the
            file and the key.
    """
    theirs, values = read_released(path)
    with naming(Path(path)):
        check_weights(theirs)
        config = tokenizer_config(values, theirs, encoder_heads, decoder_heads)
        model = _network(config)
        names = {name: released_name(name) for name in model.state_dict()}
        wanted = {names[ours]: tensor for ours, tensor in model.state_dict().items()}
        wanted |= {} if config.codebook == "memcodes" else {INITIALIZED: torch.ones(1)}
        check_tensors(theirs, wanted)
        if INITIALIZED in wanted and not theirs[INITIALIZED].all():
            raise ValueError(f"{INITIALIZED} is 0: its codebook was never used. Give a trained tokenizer.")
    model.load_state_dict({ours: theirs[name] for ours, name in names.items()})
    warn_of_nonfinite(theirs, path)
    model.released_metadata = read_metadata(path)
    return model.eval()


def _network(config: ViTVQVAEConfig | DiVAEConfig) -> ViTVQVAE | DiVAE:
    return DiVAE(config) if isinstance(config, DiVAEConfig) else ViTVQVAE(config)


def export_released_tokenizer(model: ViTVQVAE | DiVAE, path: Path | str) -> None:
    """Write a tokenizer with the key names and metadata of released files; equal weights give equal bytes.

    A tokenizer that was loaded from a released file keeps the metadata of that file. A ViT for which the reference has
    no name is written with a name of ours, which only this project reads; a warning tells so.

    Raises:
        ValueError: the released format cannot describe this tokenizer.
    """
    values = model.released_metadata or tokenizer_metadata(model.config)
    if ours := sorted({str(values[key]) for key in ("enc_type", "dec_type") if OUR_TRUNK.fullmatch(str(values.get(key)))}):
        logger.warning(
            "%s: the reference code has no ViT of this size, so the file names it %s. This project reads the file; the "
            "reference cannot.",
            path,
            " and ".join(ours),
        )
    write_bytes(Path(path), released_tokenizer_bytes(model))


def released_tokenizer_bytes(model: ViTVQVAE | DiVAE) -> bytes:
    """Return the content of the file that `export_released_tokenizer` writes."""
    tensors = {released_name(name): tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if model.config.codebook != "memcodes":
        tensors[INITIALIZED] = torch.ones(1)
    return released_bytes(tensors, model.released_metadata or tokenizer_metadata(model.config))


def tokenizer_config(
    values: dict[str, Any], theirs: Tensors, encoder_heads: int | None = None, decoder_heads: int | None = None
) -> ViTVQVAEConfig | DiVAEConfig:
    """Return our configuration from a file's metadata and, where they lack a size, from the shapes of its tensors."""
    front = _front(values, theirs, encoder_heads)
    checked = VQConfig(**front)
    name = str(values.get("dec_type", "vit_b_dec"))
    if name.startswith("unet_"):
        return DiVAEConfig(
            **front,
            decoder=_unet(name, theirs, checked.channels, checked.latent_width),
            noise=_noise(values),
            # dynamic thresholding with the reference's greatest value, 1, is clipping
            clip_sample=values.get("clip_sample", False) or values.get("thresholding", True),
        )
    return ViTVQVAEConfig(
        **front,
        decoder=_side("decoder", name, theirs, decoder_heads),
        decoder_patch_size=values.get("patch_size_dec"),
        output_blocks=values.get("out_conv", False),
    )


def tokenizer_metadata(config: VQConfig) -> dict[str, Any]:
    """Return the metadata of a released tokenizer."""
    values: dict[str, Any] = {
        "image_size": image_size_value(config.image_size),
        "n_channels": config.channels,
        "enc_type": _side_name(config.encoder, "enc"),
        "patch_proj": not config.feature_map,
        "post_mlp": isinstance(config.encoder, TrunkConfig) and config.encoder.post_mlp,
        "patch_size": config.patch_size,
        "quant_type": "memcodes" if config.codebook == "memcodes" else "lucid",
        "codebook_size": config.codebook_size,
        "num_codebooks": config.num_codebooks,
        "latent_dim": config.latent_width,
        "norm_codes": config.codebook == "cosine",
        "norm_latents": config.unit_latents,
        "ema_decay": config.codebook_decay,
        "threshold_ema_dead_code": config.dead_code_threshold,
        "code_replacement_policy": next(theirs for theirs, ours in REPLACEMENTS.items() if ours == config.code_replacement),
        "commitment_weight": config.commitment_weight,
        "sync_codebook": False,
        "undo_std": config.imagenet_standardized,
    }
    for key, size in (("image_size_enc", config.encoder_image_size), ("image_size_dec", config.decoder_image_size)):
        values |= {key: image_size_value(size)} if size else {}
    values |= {"n_labels": config.num_classes} if config.num_classes is not None else {}
    return values | (_unet_metadata(config) if isinstance(config, DiVAEConfig) else _decoder_metadata(config))


def _front(values: dict[str, Any], theirs: Tensors, heads: int | None) -> dict[str, Any]:
    """Return the settings of the encoder and the bottleneck."""
    kind, replacement = (str(values.get(*default)) for default in QUANTIZER)
    if kind not in ("lucid", "memcodes"):
        raise ValueError(f"its quantizer is {kind!r}; supported: 'lucid' (averaged codes) and 'memcodes'.")
    if replacement not in REPLACEMENTS:
        raise ValueError(f"code_replacement_policy is {replacement!r}; supported: {', '.join(map(repr, REPLACEMENTS))}.")
    averaged = "cosine" if values.get("norm_codes", True) else "euclidean"
    sizes = {
        f"{side}_image_size": image_size(values[key])
        for side, key in (("encoder", "image_size_enc"), ("decoder", "image_size_dec"))
        if values.get(key)
    }
    return sizes | {
        "channels": values.get("n_channels", 3),
        "num_classes": values.get("n_labels"),
        "imagenet_standardized": values.get("undo_std", False),
        "image_size": image_size(values.get("image_size", 224)),
        "patch_size": values.get("patch_size", 16),
        "feature_map": not values.get("patch_proj", True),
        "encoder": _side("encoder", str(values.get("enc_type", "vit_b_enc")), theirs, heads),
        "latent_width": values.get("latent_dim", 32),
        "codebook": "memcodes" if kind == "memcodes" else averaged,
        "codebook_size": values.get("codebook_size", 16384),
        "num_codebooks": values.get("num_codebooks", 1),
        "codebook_decay": values.get("ema_decay", 0.99),
        "dead_code_threshold": values.get("threshold_ema_dead_code", 0.25),
        "code_replacement": REPLACEMENTS[replacement],
        "unit_latents": values.get("norm_latents", False),
        "commitment_weight": values.get("commitment_weight", 1.0),
    }


def _side(side: str, name: str, theirs: Tensors, heads: int | None) -> TrunkConfig | VectorMlpConfig:
    """Return the shape of an encoder or decoder: an MLP's and a ViT's heads from the name, the rest from the tensors."""
    if mlp := VectorMlpConfig.from_name(name):
        return mlp
    ours = OUR_TRUNK.fullmatch(name)
    known = int(ours[1]) if ours else HEADS.get(name.removesuffix("_enc").removesuffix("_dec"))
    if not name.startswith("vit") or (heads or known) is None:
        raise ValueError(
            f"its {side} is {name!r}. Known: {', '.join(HEADS)}, BottleneckMLP/…, and {UNET_NAME} as decoder. "
            f"For other ViTs pass the number of heads, `{side}_heads`."
        )
    depth = _depth(side, name, theirs)
    blocks = [f"{side}.blocks.{block}." for block in range(depth)]
    widths = [
        (f"{block}{part}", 0) for block in blocks for part in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
    ]
    up = [(f"{block}mlp.fc1.{part}", 0) for block in blocks for part in ("weight", "bias")]
    hidden = theirs.commonest(*up, *((f"{block}mlp.fc2.weight", 1) for block in blocks))
    dim = theirs.commonest(*widths)
    has_post_mlp = any(theirs.below(f"{side}.{layer}.") for layer in ("post_mlp", "norm_mlp"))
    return TrunkConfig(dim=dim, depth=depth, num_heads=heads or known or 1, mlp_ratio=hidden / dim, post_mlp=has_post_mlp)


def _depth(side: str, name: str, theirs: Tensors) -> int:
    """Return the number of blocks of a ViT, which are numbered from 0 without gaps."""
    found = {int(match[1]) for key in theirs if (match := re.match(rf"{side}\.blocks\.(\d+)\.", key))}
    if not found:
        raise ValueError(f"it has no tensors of the {side}, but its metadata names {name!r}. Download it again.")
    if found != set(range(len(found))):
        missing = next(number for number in range(len(found)) if number not in found)
        raise ValueError(lacking([f"{side}.blocks.{missing}"]))
    return len(found)


def _unet(name: str, theirs: Tensors, channels: int, latent_width: int) -> UNetConfig:
    if name != UNET_NAME:
        raise ValueError(f"its decoder is {name!r}; the only supported diffusion decoder is {UNET_NAME!r}.")
    return unet_of(theirs, channels, latent_width)


def _noise(values: dict[str, Any]) -> NoiseConfig:
    fields: dict[str, Any] = {
        "num_steps": values.get("num_train_timesteps", 1000),
        "zero_terminal_snr": values.get("zero_terminal_snr", True),
    }
    for key, (ours, default, words) in DIFFUSION.items():
        if (found := values.get(key, default)) not in words.values():
            raise ValueError(f"{key} of the diffusion decoder is {found!r}; supported: {', '.join(map(repr, words.values()))}.")
        fields[ours] = next(word for word, theirs in words.items() if theirs == found)
    return NoiseConfig(**fields)


def _decoder_metadata(config: VQConfig) -> dict[str, Any]:
    assert isinstance(config, ViTVQVAEConfig)
    values = {"dec_type": _side_name(config.decoder, "dec"), "out_conv": config.output_blocks}
    return values | ({"patch_size_dec": config.decoder_patch_size} if config.decoder_patch_size else {})


def _unet_metadata(config: DiVAEConfig) -> dict[str, Any]:
    if config.decoder.num_groups != 32 or (config.noise.first_beta, config.noise.last_beta) != (1e-4, 0.02):
        raise ValueError(
            "Released U-Nets have 32 normalization groups and β from 1e-4 to 0.02; only such a U-Net can be exported."
        )
    return {
        "dec_type": UNET_NAME,
        "num_train_timesteps": config.noise.num_steps,
        "zero_terminal_snr": config.noise.zero_terminal_snr,
        "clip_sample": config.clip_sample,
        "thresholding": False,
    } | {key: words[getattr(config.noise, ours)] for key, (ours, _, words) in DIFFUSION.items()}


def _side_name(config: TrunkConfig | VectorMlpConfig, suffix: str) -> str:
    """Return the name of a trunk in released files: the reference's, or one of ours that gives the number of heads."""
    if isinstance(config, VectorMlpConfig):
        return config.name
    size = (config.dim, config.depth, config.num_heads)
    name = next((name for name, known in REFERENCE_TRUNKS.items() if known == size), None)
    return f"{name}_{suffix}" if name and math.isclose(config.mlp_ratio, 4) else f"vit_heads{config.num_heads}_{suffix}"
