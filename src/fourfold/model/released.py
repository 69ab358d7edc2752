"""Checkpoints in the layout of the released 4M models (apple/ml-4m): their key names to ours and back.

Ours fuse what is multiplied together (gate and up; all vocabularies of a side) and tie what training ties: a head and its
decoder table, a modality's vector on both sides. A checkpoint that has untied them is refused, not loaded approximately.
"""

# P places of a modality, D width

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fourfold.model.config import INPUT_ONLY, ModalityConfig, ModelConfig
from fourfold.model.embeddings import Side
from fourfold.model.fourm import FourM
from fourfold.model.positions import position_table
from fourfold.released_files import image_size, image_size_value, read_released, write_released

SIDES: dict[Side, str] = {"input": "encoder", "target": "decoder"}
# Inside a block: our name ← theirs. A tuple is stacked in that order.
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
# Metadata: their key → our field of the architecture. Values are `str()` of Python values.
FIELDS = {
    "dim": "dim",
    "encoder_depth": "encoder_depth",
    "decoder_depth": "decoder_depth",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "gated_mlp": "gated_mlp",
    "qkv_bias": "qkv_bias",
    "proj_bias": "projection_bias",
    "mlp_bias": "mlp_bias",
    "norm_bias": "norm_bias",
    "qk_norm": "qk_norm",
    "num_register_tokens": "num_registers",
    "patch_size": "patch_size",
}
FIXED = {"decoder_causal_mask": False, "decoder_sep_mask": True}  # what all released models have, and ours can be
SEQUENCE_PLACES = 512  # rows of a stored sin-cos table, whatever the sequence's maximum length


def load_released(path: Path) -> FourM:
    """Return the model of a released safetensors file, in evaluation mode.

    Raises ValueError for what ours cannot be: untied heads or modality vectors, another decoder mask, a bottleneck of vectors.
    """
    theirs, values = read_released(path)
    config = config_of(values, theirs)
    model = FourM(config)
    _check_ties(theirs, config)
    state = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in _translated(theirs, config).items() if name in state}, strict=True)
    return model.eval()


def export_released(model: FourM, path: Path) -> None:
    """Write a model with the reference's key names and metadata; the same weights always give the same bytes.

    Raises ValueError when the reference has no place for what the model is (a convolutional stem).
    """
    if model.config.patch_stem != "linear":
        raise ValueError("The reference's models cut patches with a linear layer: this one has `patch_stem` conv.")
    write_released(_exported(model), metadata_of(model.config), path)


def config_of(values: dict[str, Any], theirs: dict[str, Tensor]) -> ModelConfig:
    """Return our configuration of a released checkpoint: its metadata, and what its tensors show."""
    for key, only in FIXED.items():
        if values.get(key, only) != only:
            raise ValueError(f"This checkpoint has {key} {values[key]}; only {only} is supported, as in all released models.")
    fields = {ours: values[key] for key, ours in FIELDS.items() if key in values}
    activation = values.get("act_layer", "SiLU" if fields.get("gated_mlp") else "GELU")
    if activation != ("SiLU" if fields.get("gated_mlp") else "GELU"):
        raise ValueError(f"This checkpoint's feed-forward layers have {activation}; SwiGLU and GELU are supported.")
    image = image_size(values.get("image_size", 224))
    names = {key.split(".")[1] for key in theirs if key.startswith(("encoder_embeddings.", "decoder_embeddings."))}
    unknown_yet = ModalityConfig(name="any", kind="sequence", vocabulary_size=1, max_length=1)
    architecture = ModelConfig(modalities=(unknown_yet,), **fields)
    modalities = tuple(_modality(name, theirs, image, architecture) for name in sorted(names))
    return architecture.model_copy(update={"modalities": modalities})


def metadata_of(config: ModelConfig) -> dict[str, Any]:
    """Return the metadata of a released checkpoint."""
    grids = [m.grid for m in config.modalities if m.kind == "pixels" and m.grid]
    size = [side * config.patch_size for side in grids[0]] if grids else [224, 224]
    values: dict[str, Any] = {key: getattr(config, ours) for key, ours in FIELDS.items()} | FIXED
    values["act_layer"] = "SiLU" if config.gated_mlp else "GELU"
    values["image_size"] = image_size_value(size)
    values["share_modality_embeddings"] = True
    values["domains_in"] = sorted(m.name for m in config.modalities if m.sides != "target")
    values["domains_out"] = sorted(m.name for m in config.modalities if m.sides != "input" and not m.input_only)
    return values


def _modality(name: str, theirs: dict[str, Tensor], image: tuple[int, int], architecture: ModelConfig) -> ModalityConfig:
    kind = _kind(name, theirs)
    sides = [ours for ours, side in SIDES.items() if f"{side}_embeddings.{name}.pos_emb" in theirs]
    tables = [theirs[f"{SIDES[ours]}_embeddings.{name}.pos_emb"][0] for ours in sides]
    places, input_only = len(tables[0]), kind in INPUT_ONLY
    vocabulary = 0 if input_only else len(theirs[f"{SIDES[sides[0]]}_embeddings.{name}.token_emb.weight"])
    in_a_row = kind in ("sequence", "vectors")
    shape: dict[str, Any] = {"max_length": places} if in_a_row else {"grid": _grid(places, image, architecture)}
    if kind == "vectors":
        shape["vector_width"] = theirs[f"encoder_embeddings.{name}.emb_proj.weight"].shape[1]
    both: Any = "both" if len(sides) == 2 or input_only else sides[0]
    found = ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, sides=both, **shape)
    fixed_PD = position_table(found, architecture)
    learned = not all(torch.allclose(table_PD, fixed_PD, atol=1e-4) for table_PD in tables)
    return found.model_copy(update={"learned_positions": learned})


def _kind(name: str, theirs: dict[str, Tensor]) -> Literal["pixels", "grid", "sequence", "vectors"]:
    """Return what a modality is, by what the checkpoint has of it: grids of tokens are called tok_…, all else is text."""
    if f"encoder_embeddings.{name}.proj.weight" in theirs:
        return "pixels"
    if f"encoder_embeddings.{name}.emb_proj.0.weight" in theirs:
        raise ValueError(f"{name!r} comes through a bottleneck of two layers, which is not supported.")
    if f"encoder_embeddings.{name}.emb_proj.weight" in theirs:
        return "vectors"
    return "grid" if name.startswith("tok_") else "sequence"


def _grid(places: int, image: tuple[int, int], architecture: ModelConfig) -> tuple[int, int]:
    """Return rows and columns: those of the image's patches where they fit, a square, or a single row."""
    rows, columns = (side // architecture.patch_size for side in image)
    root = math.isqrt(places)
    return (rows, columns) if rows * columns == places else (root, root) if root**2 == places else (1, places)


def _check_ties(theirs: dict[str, Tensor], config: ModelConfig) -> None:
    for modality in config.modalities:
        vectors = [theirs[key] for side in SIDES.values() if (key := f"{side}_embeddings.{modality.name}.mod_emb") in theirs]
        if len(vectors) == 2 and not torch.equal(*vectors):
            raise ValueError(f"{modality.name!r} has another modality vector in the decoder than in the encoder; ours are one.")
        table, head = (f"decoder_embeddings.{modality.name}.{part}.weight" for part in ("token_emb", "to_logits"))
        # a grid's decoder table is never looked up (targets enter as the mask token), so only its head counts
        if modality.kind == "sequence" and head in theirs and not torch.equal(theirs[table], theirs[head]):
            raise ValueError(f"{modality.name!r} has a head that is not its decoder table; ours are one.")

    projections = [theirs[key] for name in config.names if (key := f"encoder_embeddings.{name}.proj.weight") in theirs]
    if any(not torch.equal(projection, projections[0]) for projection in projections):
        raise ValueError("Images of several resolutions have projections of their own here; ours share one.")


def _translated(theirs: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return their tensors under our names, and some that a model may lack (zero biases of norms without any)."""
    ours = {"mask_token_D": theirs["mask_token"].flatten()}
    if config.num_registers:
        ours["registers_RD"] = theirs["register_tokens"][0]
    ours["place.modality_ED"] = torch.stack([_of_either_side(theirs, m.name, "mod_emb").flatten() for m in config.modalities])
    for side in SIDES:
        learned = [_of_either_side(theirs, m.name, "pos_emb", side)[0] for m in config.modalities if m.learned_positions]
        ours |= {f"place.learned.{side}_LD": torch.cat(learned)} if learned else {}
        ours[f"{side}_tokens.weight_VD"] = torch.cat([_table(theirs, m, side, config.dim) for m in config.modalities])
    for name in config.names:
        for part, layer in (("proj", "patches.project"), ("emb_proj", "vector_projection")):
            for parameter in ("weight", "bias"):
                if (key := f"encoder_embeddings.{name}.{part}.{parameter}") in theirs:
                    ours[f"{layer}.{parameter}"] = theirs[key]
    for our_layer, parts in _layers(config).items():
        for kind in ("weight", "bias"):
            present = [theirs[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in theirs]
            ours |= {f"{our_layer}.{kind}": torch.cat(present)} if present else {}
    return ours


def _exported(model: FourM) -> dict[str, Tensor]:
    """Return our weights under their names; fixed positions and the zero biases of norms without any are stored too."""
    config, ours = model.config, {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    theirs = {"mask_token": ours["mask_token_D"][None, None]}
    if config.num_registers:
        theirs["register_tokens"] = ours["registers_RD"][None]
    for side, prefix in SIDES.items():
        theirs |= _exported_embeddings(model, side, prefix)
    for our_layer, parts in _layers(config).items():
        for kind in ("weight", "bias"):
            if (tensor := ours.get(f"{our_layer}.{kind}")) is not None:
                present = parts if len(parts) == 1 or config.gated_mlp else parts[:1]
                theirs |= {f"{part}.{kind}": split for part, split in zip(present, tensor.chunk(len(present)), strict=True)}
            elif kind == "bias" and "norm" in our_layer and f"{our_layer}.weight" in ours:
                theirs[f"{parts[0]}.bias"] = torch.zeros_like(ours[f"{our_layer}.weight"])
    return theirs


def _exported_embeddings(model: FourM, side: Side, prefix: str) -> dict[str, Tensor]:
    config = model.config
    theirs: dict[str, Tensor] = {}
    tables = (model.input_tokens if side == "input" else model.target_tokens).per_modality()
    sizes = [modality.num_positions for modality in config.modalities]
    with torch.no_grad():
        positions = model.place.positions(side).cpu().split(sizes)
        for index, modality in enumerate(config.modalities):
            if (modality.input_only and side == "target") or modality.sides not in ("both", side):
                continue
            table_PD = positions[index]
            if modality.max_length and not modality.learned_positions:
                longest = modality.model_copy(update={"max_length": max(SEQUENCE_PLACES, modality.num_positions)})
                table_PD = position_table(longest, config)
            found = {"mod_emb": model.place.modality_ED[index][None, None].cpu(), "pos_emb": table_PD[None]}
            if modality.kind == "pixels" and model.patches is not None:
                found["proj.weight"] = model.patches.project.weight.detach().cpu()
            elif modality.kind == "vectors" and model.vector_projection is not None:
                projection = model.vector_projection.state_dict()
                found |= {f"emb_proj.{part}": tensor.cpu() for part, tensor in projection.items()}
            else:
                found["token_emb.weight"] = tables[index].detach().cpu()
            if side == "target":
                found["to_logits.weight"] = found["token_emb.weight"]
            theirs |= {f"{prefix}_embeddings.{modality.name}.{part}": tensor for part, tensor in found.items()}
    return theirs


def _layers(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return our layer → their layers, for all blocks and what stands beside them."""
    layers: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in OTHER_LAYERS.items()}
    for side, depth, inside in (
        ("encoder", config.encoder_depth, ENCODER_LAYERS),
        ("decoder", config.decoder_depth, DECODER_LAYERS),
    ):
        for block in range(depth):
            layers |= {f"{side}.{block}.{ours}": tuple(f"{side}.{block}.{p}" for p in parts) for ours, parts in inside.items()}
    return layers


def _table(theirs: dict[str, Tensor], modality: ModalityConfig, side: Side, dim: int) -> Tensor:
    """Return the token table of one side, (vocabulary, D); zeros where the checkpoint does not use that side."""
    prefix = f"{SIDES[side]}_embeddings.{modality.name}"
    for part in ("to_logits", "token_emb"):  # the encoder has no heads
        if f"{prefix}.{part}.weight" in theirs:
            return theirs[f"{prefix}.{part}.weight"]
    return torch.zeros(modality.vocabulary_size, dim)


def _of_either_side(theirs: dict[str, Tensor], name: str, what: str, first: Side = "input") -> Tensor:
    """Return a part of a modality's embedding from one side, from the other where that side has none."""
    for side in (first, *(side for side in SIDES if side != first)):
        if (key := f"{SIDES[side]}_embeddings.{name}.{what}") in theirs:
            return theirs[key]
    raise ValueError(f"The checkpoint has no {what} of {name!r}.")
