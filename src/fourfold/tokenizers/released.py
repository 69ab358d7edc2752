"""Tokenizers in the layout of the released 4M ones (apple/ml-4m): their key names to ours and back.

VQ-VAEs with ViTs on both sides. Diffusion decoders and tokenizers of global vectors (MLPs) are not here yet.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.released_files import read_released, write_released
from fourfold.tokenizers.vit import TrunkConfig
from fourfold.tokenizers.vit_vqvae import ViTVQVAE, ViTVQVAEConfig

# The reference names trunks instead of storing their heads: name without `_enc` or `_dec` → heads.
HEADS = {"vit_t": 3, "vit_s": 8, "vit_b": 12, "vit_l": 16}
# Our name ← theirs, of whole tokenizers (prefixes), then inside a trunk.
PARTS = {
    "classes.": "cls_emb.",
    "to_latents.": "quant_proj.",
    "from_latents.": "post_quant_proj.",
    "encoder.project.": "encoder.proj.",
    "decoder.project.": "decoder.out_proj.",
    "bottleneck.split.": "quantize.project_in.",
    "bottleneck.join.": "quantize.project_out.",
    "bottleneck.table.codes_KD": "quantize._codebook.embed",
    "bottleneck.table.counts_K": "quantize._codebook.cluster_size",
    "bottleneck.table.sums_KD": "quantize._codebook.embed_avg",
    "decoder.output_blocks.": "decoder.out_conv.",
    "encoder.trunk.": "encoder.",
    "decoder.trunk.": "decoder.",
}
INSIDE = {
    "position_1Dhw": "pos_emb",
    "post_norm.": "norm_mlp.",
    "post_mlp.up.": "post_mlp.fc1.",
    "post_mlp.down.": "post_mlp.fc2.",
    ".attention_norm.": ".norm1.",
    ".qkv.": ".attn.qkv.",
    ".out.": ".attn.proj.",
    ".mlp_norm.": ".norm2.",
}
MLP_OF_BLOCK = {".mlp.up.": ".mlp.fc1.", ".mlp.down.": ".mlp.fc2."}
CONVNEXT = {".spatial.": ".dwconv.", ".mlp.up.": ".pwconv1.", ".mlp.down.": ".pwconv2.", ".scale_C": ".gamma"}
STARTED = "quantize._codebook.initted"


def load_released_tokenizer(path: Path, encoder_heads: int | None = None, decoder_heads: int | None = None) -> ViTVQVAE:
    """Return the VQ-VAE of a released safetensors file, in evaluation mode.

    `*_heads`: of trunks whose name is not known here. Raises ValueError for what is not supported.
    """
    theirs, values = read_released(path)
    model = ViTVQVAE(tokenizer_config(values, theirs, encoder_heads, decoder_heads))
    names = {name: released_name(name) for name in model.state_dict()}
    if missing := sorted(set(names.values()) - set(theirs)):
        raise ValueError(f"{path} lacks {', '.join(missing[:5])}: it is not a VQ-VAE of the layout that its metadata tells.")
    model.load_state_dict({ours: theirs[name] for ours, name in names.items()})
    return model.eval()


def export_released_tokenizer(model: ViTVQVAE, path: Path) -> None:
    """Write a VQ-VAE with the reference's key names and metadata; the same weights always give the same bytes."""
    tensors = {released_name(name): tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors[STARTED] = torch.ones(1)  # codes are there: the reference does not start with k-means
    write_released(tensors, tokenizer_metadata(model.config), path)


def released_name(ours: str) -> str:
    """Return the reference's name of one of our tensors."""
    start, theirs = next((start, theirs) for start, theirs in PARTS.items() if ours.startswith(start))
    rest = ours.removeprefix(start)
    inner = CONVNEXT if "output_blocks" in start else MLP_OF_BLOCK | INSIDE
    rest = f".{rest}" if "output_blocks" in start else rest
    for our_part, their_part in inner.items():
        rest = rest.replace(our_part, their_part) if our_part in rest else rest
    return theirs + rest.removeprefix(".")


def tokenizer_config(
    values: dict[str, Any], theirs: dict[str, Tensor], encoder_heads: int | None, decoder_heads: int | None
) -> ViTVQVAEConfig:
    """Return our configuration: the file's metadata, and what its tensors show."""
    if values.get("quant_type", "lucid") != "lucid":
        raise ValueError(f"This tokenizer's quantiser is {values['quant_type']!r}; 'lucid' (averaged codes) is supported.")
    size = values.get("image_size", 224)
    threshold = values.get("threshold_ema_dead_code", 0.25)
    return ViTVQVAEConfig(
        channels=values.get("n_channels", 3),
        num_classes=values.get("n_labels"),
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        patch_size=values.get("patch_size", 16),
        feature_map=not values.get("patch_proj", True),
        encoder=_trunk("encoder", str(values.get("enc_type", "vit_b_enc")), theirs, encoder_heads),
        decoder=_trunk("decoder", str(values.get("dec_type", "vit_b_dec")), theirs, decoder_heads),
        output_blocks=values.get("out_conv", False),
        latent_width=values.get("latent_dim", 32),
        codebook="cosine" if values.get("norm_codes", True) else "euclidean",
        codebook_size=values.get("codebook_size", 16384),
        num_codebooks=values.get("num_codebooks", 1),
        codebook_decay=values.get("ema_decay", 0.99),
        dead_code_threshold=threshold,
        unit_latents=values.get("norm_latents", False),
        commitment_weight=values.get("commitment_weight", 1.0),
    )


def tokenizer_metadata(config: ViTVQVAEConfig) -> dict[str, Any]:
    """Return the metadata of a released tokenizer."""
    size = config.image_size
    values: dict[str, Any] = {
        "image_size": size[0] if size[0] == size[1] else list(size),
        "n_channels": config.channels,
        "enc_type": f"{_trunk_name(config.encoder)}_enc",
        "dec_type": f"{_trunk_name(config.decoder)}_dec",
        "patch_proj": not config.feature_map,
        "post_mlp": config.encoder.post_mlp,
        "patch_size": config.patch_size,
        "quant_type": "lucid",
        "codebook_size": config.codebook_size,
        "num_codebooks": config.num_codebooks,
        "latent_dim": config.latent_width,
        "norm_codes": config.codebook == "cosine",
        "norm_latents": config.unit_latents,
        "ema_decay": config.codebook_decay,
        "threshold_ema_dead_code": config.dead_code_threshold,
        "commitment_weight": config.commitment_weight,
        "sync_codebook": False,
        "undo_std": False,
        "out_conv": config.output_blocks,
    }
    if config.num_classes is not None:
        values["n_labels"] = config.num_classes
    return values


def _trunk(side: str, name: str, theirs: dict[str, Tensor], heads: int | None) -> TrunkConfig:
    """Return the shape of a trunk: heads by name, everything else from its tensors."""
    known = HEADS.get(name.removesuffix("_enc").removesuffix("_dec"))
    if not name.startswith("vit") or (heads or known) is None:
        raise ValueError(
            f"The {side} is {name!r}. Known: {', '.join(HEADS)}; of other ViTs give the number of heads (`{side}_heads`)."
        )
    depth = 1 + max(int(key.split(".")[2]) for key in theirs if key.startswith(f"{side}.blocks."))
    hidden, dim = theirs[f"{side}.blocks.0.mlp.fc1.weight"].shape
    post = f"{side}.post_mlp.fc1.weight" in theirs
    return TrunkConfig(dim=dim, depth=depth, num_heads=heads or known or 1, mlp_ratio=hidden / dim, post_mlp=post)


def _trunk_name(config: TrunkConfig) -> str:
    name = next((name for name, heads in HEADS.items() if heads == config.num_heads), None)
    if name is None or not math.isclose(config.mlp_ratio, 4):
        raise ValueError(f"The reference has no trunk of {config.num_heads} heads and MLP ratio {config.mlp_ratio}.")
    return name
