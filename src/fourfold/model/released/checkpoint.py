"""Read and write checkpoints in the layout of the released 4M models (apple/ml-4m).

Our parameters fuse matrices that are multiplied together (gate and up; all vocabularies of a side). They tie what 4M ties in
training: a head and its decoder table, and the modality vectors of both sides. A checkpoint with different values there is
loaded untied.
"""

# P positions, L rows of learned positions, R registers, V rows of all vocabularies, D width

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.model.config import ModelConfig
from fourfold.model.embeddings import Side, position_table
from fourfold.model.fourm import FourM
from fourfold.model.released.config import SIDES, config_of, is_of_norm, metadata_of, modality_names
from fourfold.model.released.files import (
    Tensors,
    check_tensors,
    check_weights,
    naming,
    read_metadata,
    read_released,
    warn_of_nonfinite,
    write_released,
)

# Layers of a block: our name → the released names. Several are stacked in that order.
ATTENTION = {"qkv": "qkv", "q": "q", "kv": "kv", "out": "proj", "q_norm.norm": "q_norm", "k_norm.norm": "k_norm"}
FEED_FORWARD = {"mlp.up": ("mlp.fc1", "mlp.fc3"), "mlp.down": ("mlp.fc2",)}
ENCODER_LAYERS: dict[str, tuple[str, ...]] = {
    "attention_norm": ("norm1",),
    **{f"attention.{ours}": (f"attn.{theirs}",) for ours, theirs in ATTENTION.items() if ours not in ("q", "kv")},
    "mlp_norm": ("norm2",),
    **FEED_FORWARD,
}
DECODER_LAYERS: dict[str, tuple[str, ...]] = {
    "self_norm": ("norm1",),
    **{f"self_attention.{ours}": (f"self_attn.{theirs}",) for ours, theirs in ATTENTION.items() if ours not in ("q", "kv")},
    "query_norm": ("query_norm",),
    "context_norm": ("context_norm",),
    **{f"cross_attention.{ours}": (f"cross_attn.{theirs}",) for ours, theirs in ATTENTION.items() if ours != "qkv"},
    "mlp_norm": ("norm2",),
    **FEED_FORWARD,
}
OTHER_LAYERS = {"encoder_norm": "encoder_norm", "decoder_norm": "decoder_norm", "context_projection": "decoder_proj_context"}
SEQUENCE_POSITIONS = 512  # rows of a stored sin-cos table, also for shorter sequences


def load_released(path: Path | str) -> FourM:
    """Load a released model, in evaluation mode. NaN or infinity in its weights is a warning.

    Args:
        path: The safetensors file, or a folder of a model hub with `model.safetensors` and `config.json`.

    Raises:
        ValueError: A tensor is missing, superfluous or has another shape or type; or the model has an option that is not
            supported. The message names the file and the key.
    """
    theirs, values = read_released(path)
    with naming(Path(path)):
        check_weights(theirs)
        theirs = _completed(theirs, values)
        config = config_of(values, theirs)
        model = FourM(config)
        check_tensors(theirs, _exported(model))
    model.load_state_dict(_translated(theirs, model), strict=True)
    warn_of_nonfinite(theirs, path)
    model.released_metadata = read_metadata(path)
    return model.eval()


def export_released(model: FourM, path: Path | str) -> None:
    """Write a model with the key names and metadata of released files. The same weights always give the same bytes.

    A model that was loaded from a released file keeps the metadata of that file.

    Raises:
        ValueError: The released layout cannot store the model, because it has a convolutional stem.
    """
    if model.config.patch_stem != "linear":
        raise ValueError("This model has `patch_stem` conv; released files can store only `patch_stem` linear.")
    write_released(_exported(model), model.released_metadata or metadata_of(model.config), path)


def _completed(theirs: Tensors, values: dict[str, Any]) -> Tensors:
    """Add the tensors that a writer may omit because they equal others or zero: all of a kind, or none.

    The metadata must tell that they are equal. If only some are missing, the file is damaged; those stay missing.
    """
    added = Tensors(theirs)
    names = [name for name in modality_names(theirs) if theirs.below(f"decoder_embeddings.{name}.")]
    pairs = {
        "mod_emb": ("encoder", "mod_emb"),
        "to_logits.weight": ("decoder", "token_emb.weight"),
        "token_emb.weight": ("decoder", "to_logits.weight"),
    }
    for part, (side, same) in pairs.items() if values.get("share_modality_embeddings") is True else ():
        of_both = {f"decoder_embeddings.{name}.{part}": f"{side}_embeddings.{name}.{same}" for name in names}
        of_both = {key: other for key, other in of_both.items() if other in theirs}
        if not of_both.keys() & theirs.keys():
            added.update({key: theirs[other] for key, other in of_both.items()})
    if values.get("norm_bias", True) is False and not any(is_of_norm(key, "bias") for key in theirs):
        norms = [key.removesuffix("weight") for key in theirs if is_of_norm(key, "weight")]
        added.update({f"{norm}bias": torch.zeros_like(theirs[f"{norm}weight"]) for norm in norms})
    return added


def _translated(theirs: Tensors, model: FourM) -> dict[str, Tensor]:
    """Return released tensors under the names of our model."""
    config = model.config
    ours = {"mask_token_D": theirs["mask_token"].flatten()}
    if config.num_registers:
        ours["registers_RD"] = theirs["register_tokens"][0]
    ours["place.modality_ED"] = torch.stack([_of_either_side(theirs, m.name, "mod_emb", "input") for m in config.modalities])
    if not config.shared_modality_vectors:
        of_targets = [_of_either_side(theirs, m.name, "mod_emb", "target") for m in config.modalities]
        ours["place.of_targets_ED"] = torch.stack(of_targets)
    for side in SIDES:
        learned = [_of_either_side(theirs, m.name, "pos_emb", side) for m in config.modalities if m.learned_positions]
        ours |= {f"place.learned.{side}_LD": torch.cat(learned)} if learned else {}
        ours[f"{side}_tokens.weight_VD"] = _tables(theirs, config, side, "token_emb")
    if not config.tied_heads:
        ours["heads.weight_VD"] = _tables(theirs, config, "target", "to_logits")
    layers = _layers(config) | {layer: (part,) for layer, part in _input_layers(model).items()}
    for our_layer, parts in layers.items():
        for kind in ("weight", "bias"):
            found = [theirs[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in theirs]
            ours |= {f"{our_layer}.{kind}": torch.cat(found)} if found else {}
    wanted = model.state_dict().keys()  # drops zero biases of norms that have no bias here
    return {name: tensor for name, tensor in ours.items() if name in wanted}


def _exported(model: FourM) -> dict[str, Tensor]:
    """Return our weights under released names, with fixed positions and zero biases of norms without bias."""
    config, ours = model.config, {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    theirs = {"mask_token": ours["mask_token_D"][None, None]}
    if config.num_registers:
        theirs["register_tokens"] = ours["registers_RD"][None]
    for side, prefix in SIDES.items():
        theirs |= _exported_embeddings(model, side, prefix)
    for our_layer, part in _input_layers(model).items():
        theirs |= {f"{part}.{kind}": ours[key] for kind in ("weight", "bias") if (key := f"{our_layer}.{kind}") in ours}
    for our_layer, parts in _layers(config).items():
        for kind in ("weight", "bias"):
            if (tensor := ours.get(f"{our_layer}.{kind}")) is not None:
                targets = parts if len(parts) == 1 or config.gated_mlp else parts[:1]
                theirs |= {f"{part}.{kind}": split for part, split in zip(targets, tensor.chunk(len(targets)), strict=True)}
            elif kind == "bias" and "norm" in our_layer and f"{our_layer}.weight" in ours:
                theirs[f"{parts[0]}.bias"] = torch.zeros_like(ours[f"{our_layer}.weight"])
    return theirs


@torch.no_grad()
def _exported_embeddings(model: FourM, side: Side, prefix: str) -> dict[str, Tensor]:
    """Return positions, modality vectors, tables and heads of the modalities that a checkpoint stores on this side."""
    config = model.config
    theirs: dict[str, Tensor] = {}
    tables = (model.input_tokens if side == "input" else model.target_tokens).per_modality()
    positions = model.positions.position_table(side).split([modality.num_positions for modality in config.modalities])
    for index, modality in enumerate(config.modalities):
        if (modality.input_only and side == "target") or modality.sides not in ("both", side):
            continue
        table_PD = positions[index]
        if modality.max_length and not modality.learned_positions:
            longest = modality.model_copy(update={"max_length": max(SEQUENCE_POSITIONS, modality.num_positions)})
            table_PD = position_table(longest, config)
        found = {"mod_emb": model.positions.modality_table(side)[index][None, None], "pos_emb": table_PD[None]}
        found |= {} if modality.input_only else {"token_emb.weight": tables[index]}
        found |= {"to_logits.weight": model.head_table.per_modality()[index]} if side == "target" else {}
        theirs |= {f"{prefix}_embeddings.{modality.name}.{part}": tensor.cpu() for part, tensor in found.items()}
    return theirs


def _layers(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return our layer → released layers, for all blocks, norms and the context projection."""
    layers: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in OTHER_LAYERS.items()}
    for side, depth, inside in (
        ("encoder", config.encoder_depth, ENCODER_LAYERS),
        ("decoder", config.decoder_depth, DECODER_LAYERS),
    ):
        for block in range(depth):
            layers |= {f"{side}.{block}.{ours}": tuple(f"{side}.{block}.{p}" for p in parts) for ours, parts in inside.items()}
    return layers


def _input_layers(model: FourM) -> dict[str, str]:
    """Return our layer → released layer, for pixels and vectors."""
    config = model.config
    of_pixels = ["patches", *(f"further_patches.{number}" for number in range(len(model.further_patches)))]
    layers = {f"{ours}.project": (config.names[index], "proj") for ours, index in zip(of_pixels, model.pixels, strict=False)}
    if model.vectors is not None:
        modality = config.modalities[model.vectors]
        parts = ("",) if modality.vector_bottleneck is None else (".0", ".1")
        layers |= {f"vector_projection{part}": (modality.name, f"emb_proj{part}") for part in parts}
    return {ours: f"encoder_embeddings.{name}.{part}" for ours, (name, part) in layers.items()}


def _tables(theirs: Tensors, config: ModelConfig, side: Side, part: str) -> Tensor:
    """Return the tables or heads of one side end to end, (V, D); zeros for modalities without this side."""
    keys = [f"{SIDES[side]}_embeddings.{modality.name}.{part}.weight" for modality in config.modalities]
    empty = [torch.zeros(modality.vocabulary_size, config.dim) for modality in config.modalities]
    return torch.cat([theirs.get(key, zeros) for key, zeros in zip(keys, empty, strict=True)])


def _of_either_side(theirs: Tensors, name: str, what: str, first: Side) -> Tensor:
    """Return a modality's vector (D,) or positions (P, D) of side `first`, or of the other side if that has none."""
    keys = [f"{SIDES[side]}_embeddings.{name}.{what}" for side in (first, *(side for side in SIDES if side != first))]
    found = theirs[keys[0]] if keys[0] in theirs else theirs[keys[1]]
    return found[0, 0] if what == "mod_emb" else found[0]
