"""Read checkpoints in the layout of the released 4M models (apple/ml-4m): its key names onto ours.

Ours fuse what is multiplied together (gate and up; all vocabularies of a side) and tie what training ties.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fourfold.modalities import token_modality
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

# Inside a block: our name ← theirs. A tuple is stacked in that order.
ENCODER_LAYERS: dict[str, tuple[str, ...]] = {
    "attention_norm": ("norm1",),
    "attention.qkv": ("attn.qkv",),
    "attention.out": ("attn.proj",),
    "attention.q_norm.norm": ("attn.q_norm",),
    "attention.k_norm.norm": ("attn.k_norm",),
    "mlp_norm": ("norm2",),
    "mlp.up": ("mlp.fc1", "mlp.fc3"),
    "mlp.down": ("mlp.fc2",),
}
DECODER_LAYERS: dict[str, tuple[str, ...]] = {
    "self_norm": ("norm1",),
    "self_attention.qkv": ("self_attn.qkv",),
    "self_attention.out": ("self_attn.proj",),
    "self_attention.q_norm.norm": ("self_attn.q_norm",),
    "self_attention.k_norm.norm": ("self_attn.k_norm",),
    "query_norm": ("query_norm",),
    "context_norm": ("context_norm",),
    "cross_attention.q": ("cross_attn.q",),
    "cross_attention.kv": ("cross_attn.kv",),
    "cross_attention.out": ("cross_attn.proj",),
    "cross_attention.q_norm.norm": ("cross_attn.q_norm",),
    "cross_attention.k_norm.norm": ("cross_attn.k_norm",),
    "mlp_norm": ("norm2",),
    "mlp.up": ("mlp.fc1", "mlp.fc3"),
    "mlp.down": ("mlp.fc2",),
}
OTHER_LAYERS = {"encoder_norm": "encoder_norm", "decoder_norm": "decoder_norm", "context_projection": "decoder_proj_context"}


def load_released(path: Path) -> FourM:
    """Return the model of a released safetensors file, in evaluation mode.

    Raises ValueError for what is not supported yet: registers, learned positions, mixed biases, unknown modalities.
    """
    with safe_open(path, "pt") as file:
        theirs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        config = config_of(file.metadata() or {}, theirs)
    model = FourM(config)
    ours = {name: tensor for name, tensor in _translated(theirs, model).items() if name in model.state_dict()}
    model.load_state_dict(ours, strict=True)
    _check_positions(theirs, model)
    return model.eval()


def config_of(metadata: dict[str, str], theirs: dict[str, Tensor]) -> ModelConfig:
    """Return our configuration of a released checkpoint: its metadata, and what its tensors show."""
    biases = {metadata.get(key, "False") for key in ("qkv_bias", "proj_bias", "mlp_bias", "norm_bias")}
    if len(biases) > 1 or metadata.get("num_register_tokens", "0") != "0":
        raise ValueError("Register tokens and biases in only some layers are not supported yet; this checkpoint has them.")
    names = sorted({key.split(".")[1] for key in theirs if key.startswith(("encoder_embeddings.", "decoder_embeddings."))})
    return ModelConfig(
        modalities=tuple(_modality(name, theirs) for name in names),
        dim=int(metadata["dim"]),
        encoder_depth=int(metadata["encoder_depth"]),
        decoder_depth=int(metadata["decoder_depth"]),
        num_heads=int(metadata["num_heads"]),
        mlp_ratio=float(metadata["mlp_ratio"]),
        gated_mlp=metadata["gated_mlp"] == "True",
        biases=biases == {"True"},
        qk_norm=metadata.get("qk_norm", "False") == "True",
        patch_size=int(metadata.get("patch_size", "16")),
    )


def _modality(name: str, theirs: dict[str, Tensor]) -> ModalityConfig:
    kind = token_modality(name.partition("@")[0]).kind
    side = "encoder" if f"encoder_embeddings.{name}.pos_emb" in theirs else "decoder"
    num_positions = theirs[f"{side}_embeddings.{name}.pos_emb"].shape[1]
    if kind == "sequence":
        vocabulary = theirs[f"{side}_embeddings.{name}.token_emb.weight"].shape[0]
        return ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, max_length=num_positions)
    side_length = math.isqrt(num_positions)
    vocabulary = 0 if kind == "pixels" else theirs[f"{side}_embeddings.{name}.token_emb.weight"].shape[0]
    return ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, grid=(side_length, side_length))


def _translated(theirs: dict[str, Tensor], model: FourM) -> dict[str, Tensor]:
    config = model.config
    ours = {"mask_token_D": theirs["mask_token"].flatten()}
    ours["place.modality_ED"] = torch.stack([_either_side(theirs, name, "mod_emb").flatten() for name in config.names])
    tokens = [modality.name for modality in config.modalities if modality.kind != "pixels"]
    for our_side, side in (("input_tokens", "encoder"), ("target_tokens", "decoder")):
        ours[f"{our_side}.weight_VD"] = torch.cat([theirs[f"{side}_embeddings.{name}.token_emb.weight"] for name in tokens])
    for name in config.names:
        if f"encoder_embeddings.{name}.proj.weight" in theirs:
            ours["patches.project.weight"] = theirs[f"encoder_embeddings.{name}.proj.weight"]
    for our_layer, layer in OTHER_LAYERS.items():
        ours |= _layer(our_layer, (layer,), theirs)
    for side, depth, layers in (
        ("encoder", config.encoder_depth, ENCODER_LAYERS),
        ("decoder", config.decoder_depth, DECODER_LAYERS),
    ):
        for block in range(depth):
            for our_layer, parts in layers.items():
                ours |= _layer(f"{side}.{block}.{our_layer}", tuple(f"{side}.{block}.{part}" for part in parts), theirs)
    return ours


def _layer(our_layer: str, parts: tuple[str, ...], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        present = [theirs[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in theirs]
        if present:
            found[f"{our_layer}.{kind}"] = torch.cat(present)
    return found


def _either_side(theirs: dict[str, Tensor], name: str, what: str) -> Tensor:
    key = f"encoder_embeddings.{name}.{what}"
    return theirs[key] if key in theirs else theirs[f"decoder_embeddings.{name}.{what}"]


def _check_positions(theirs: dict[str, Tensor], model: FourM) -> None:
    sizes: Any = [modality.num_positions for modality in model.config.modalities]
    for name, ours_PD in zip(model.config.names, model.place.position_PD.split(sizes), strict=True):
        if not torch.allclose(_either_side(theirs, name, "pos_emb")[0], ours_PD, atol=1e-4):
            raise ValueError(f"The positions of {name!r} are not the fixed sin-cos table; learned ones are not supported yet.")
