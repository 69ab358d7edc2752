"""Convert the metadata and tensor shapes of a released 4M model (apple/ml-4m) to our configuration, and back."""

# P positions of a modality, D width

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.config import INPUT_ONLY, Activation, ModalityConfig, ModelConfig
from fourfold.model.embeddings import Side, position_table, sincos_1d, sincos_2d
from fourfold.model.released.files import Tensors, image_size, image_size_value, lacking

SIDES: dict[Side, str] = {"input": "encoder", "target": "decoder"}
# Released metadata key → our field, and the default of the 4M code if the key is missing.
FIELDS: dict[str, tuple[str, Any]] = {
    "dim": ("dim", 768),
    "encoder_depth": ("encoder_depth", 12),
    "decoder_depth": ("decoder_depth", 12),
    "num_heads": ("num_heads", 12),
    "mlp_ratio": ("mlp_ratio", 4.0),
    "gated_mlp": ("gated_mlp", False),
    "qkv_bias": ("qkv_bias", True),
    "proj_bias": ("projection_bias", True),
    "mlp_bias": ("mlp_bias", True),
    "norm_bias": ("norm_bias", True),
    "qk_norm": ("qk_norm", False),
    "num_register_tokens": ("num_registers", 0),
    "patch_size": ("patch_size", 16),
    "decoder_causal_mask": ("causal_targets", False),
    "decoder_sep_mask": ("separate_targets", True),
}
ACTIVATIONS: dict[str, Activation] = {"SiLU": "silu", "GELU": "gelu", "ReLU": "relu"}  # class names in torch.nn
# Tables are stored in half precision. Largest difference to a sin-cos table of ours, and to any sin-cos table of that kind:
FIXED, NEAR = 1e-4, 2e-2
PIXEL_CHANNELS = 3


def config_of(values: dict[str, Any], theirs: Tensors) -> ModelConfig:
    """Return our configuration of a released checkpoint.

    Raises:
        ValueError: Settings are missing, contradict the tensors, or are not supported.
    """
    if not modality_names(theirs):
        raise ValueError(
            "it has no encoder_embeddings and no decoder_embeddings: it is not a 4M model. Give a released 4M checkpoint."
        )
    _check_domains(values, theirs)
    _check_embeddings(theirs)
    fields: dict[str, Any] = {ours: values.get(key, default) for key, (ours, default) in FIELDS.items()}
    activation = str(values.get("act_layer", "GELU"))
    if activation not in ACTIVATIONS:
        raise ValueError(f"its feed-forward layers have {activation}; {', '.join(ACTIVATIONS)} are supported.")
    # The 4M code stores biases of norms "without bias" too. They are zeros, unless someone has set them.
    biases = (tensor for key, tensor in theirs.items() if is_of_norm(key, "bias"))
    fields |= {
        "activation": ACTIVATIONS[activation],
        "norm_bias": fields["norm_bias"] or any(bool(bias.any()) for bias in biases),
        "patch_size": _patch_size(theirs, fields["patch_size"]),
        "tied_heads": _are_tied(theirs, "decoder_embeddings.{}.token_emb.weight", "decoder_embeddings.{}.to_logits.weight"),
        "shared_modality_vectors": _are_tied(theirs, "encoder_embeddings.{}.mod_emb", "decoder_embeddings.{}.mod_emb"),
    }
    placeholder = ModalityConfig(name="any", kind="sequence", vocabulary_size=1, max_length=1)
    architecture = ModelConfig(modalities=(placeholder,), **fields)
    for side, depth in (("encoder", architecture.encoder_depth), ("decoder", architecture.decoder_depth)):
        if not theirs.below(f"{side}.{depth - 1}."):
            raise ValueError(lacking([f"{side}.{depth - 1}"]))
    image = image_size(values.get("image_size", 224))
    modalities = tuple(_modality(name, theirs, image, architecture) for name in modality_names(theirs))
    # Validate again: rules that concern all modalities together
    return ModelConfig(**architecture.model_dump() | {"modalities": modalities})


def metadata_of(config: ModelConfig) -> dict[str, Any]:
    """Return the metadata of a released checkpoint."""
    size = next(iter(config.pixel_sizes.values()), (224, 224))
    values: dict[str, Any] = {key: getattr(config, ours) for key, (ours, _) in FIELDS.items()}
    values["act_layer"] = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    values["image_size"] = image_size_value(size)
    values["share_modality_embeddings"] = config.shared_modality_vectors
    values["domains_in"] = sorted(m.name for m in config.modalities if m.sides != "target")
    values["domains_out"] = sorted(m.name for m in config.modalities if m.can_be_target)
    return values


def modality_names(theirs: Mapping[str, Tensor]) -> list[str]:
    """Return the sorted names of the modalities in a checkpoint."""
    starts = tuple(f"{side}_embeddings." for side in SIDES.values())
    return sorted({key.split(".")[1] for key in theirs if key.startswith(starts) and key.count(".") > 1})


def is_of_norm(key: str, parameter: str) -> bool:
    """Return whether a key is the weight or bias (`parameter`) of a norm."""
    layer, _, last = key.rpartition(".")
    return last == parameter and "norm" in layer.rpartition(".")[2]


def _check_domains(values: dict[str, Any], theirs: Tensors) -> None:
    """Check that the file has the modalities that its metadata names, on each side, and no others.

    The reference skips domains that have no embedding on a side: pixels and vectors are never decoded.
    """
    for side, key in (("encoder", "domains_in"), ("decoder", "domains_out")):
        if key not in values:
            continue
        named = _names(key, values[key])
        found = {name for name in modality_names(theirs) if theirs.below(f"{side}_embeddings.{name}.")}
        needed = {name for name in named if side == "encoder" or not _is_input_only(name, theirs)}
        if missing := sorted(needed - found):
            some = ", ".join(f"{side}_embeddings.{name}" for name in missing)
            raise ValueError(f"it lacks {some}, which its {key} names. Download it again, or give another file.")
        if further := sorted(found - named):
            some = ", ".join(f"{side}_embeddings.{name}" for name in further)
            raise ValueError(f"it has {some}, but its {key} does not name {', '.join(further)}. Give an unchanged file.")


def _names(key: str, value: Any) -> set[str]:
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):  # YAML without quotation marks
        value = [name.strip() for name in value[1:-1].split(",") if name.strip()]
    if not isinstance(value, list | tuple | set) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} is {value!r}; it must be a list of names of modalities.")
    return set(value)


def _is_input_only(name: str, theirs: Tensors) -> bool:
    known = TOKEN_MODALITIES.get(base_name(name))
    start = f"encoder_embeddings.{name}."
    return (known is not None and known.input_only) or theirs.below(f"{start}proj.") or theirs.below(f"{start}emb_proj")


def _check_embeddings(theirs: Tensors) -> None:
    """Check that each modality has all parts of its sides, with the dimensions that the configuration is read from."""
    missing: list[str] = []
    for name in modality_names(theirs):
        for side, ours in ((side, ours) for ours, side in SIDES.items() if theirs.below(f"{side}_embeddings.{name}.")):
            parts = ["pos_emb", "mod_emb", _content_part(name, theirs), *(["to_logits.weight"] if ours == "target" else [])]
            missing += [key for part in parts if (key := f"{side}_embeddings.{name}.{part}") not in theirs]
    if missing:
        raise ValueError(lacking(missing))
    for key, tensor in sorted(theirs.items()):
        if key.endswith((".pos_emb", ".mod_emb")) and (tensor.ndim != 3 or tensor.shape[0] != 1 or not tensor.shape[1]):
            raise ValueError(f"{key} has the shape {tuple(tensor.shape)}; it must be (1, number, width). Download it again.")
        if "_embeddings." in key and key.endswith(".weight") and (tensor.ndim != 2 or 0 in tensor.shape):
            raise ValueError(f"{key} has the shape {tuple(tensor.shape)}; it must have two dimensions. Download it again.")


def _content_part(name: str, theirs: Tensors) -> str:
    """Return the parameter that embeds the content of a modality: patches, vectors or tokens."""
    start = f"encoder_embeddings.{name}."
    known = TOKEN_MODALITIES.get(base_name(name))
    has_tokens = any(f"{side}_embeddings.{name}.token_emb.weight" in theirs for side in SIDES.values())
    if theirs.below(f"{start}proj.") or (known and known.kind == "pixels" and not has_tokens):
        return "proj.weight"
    if theirs.below(f"{start}emb_proj") or (known and known.kind == "vectors" and not has_tokens):
        return "emb_proj.0.weight" if _has_bottleneck(start, theirs) else "emb_proj.weight"
    return "token_emb.weight"


def _has_bottleneck(start: str, theirs: Tensors) -> bool:
    return theirs.below(f"{start}emb_proj.0.") or theirs.below(f"{start}emb_proj.1.")


def _modality(name: str, theirs: Tensors, image: tuple[int, int], architecture: ModelConfig) -> ModalityConfig:
    sides: dict[Side, str] = {ours: f"{side}_embeddings.{name}." for ours, side in SIDES.items()}
    sides = {ours: start for ours, start in sides.items() if f"{start}pos_emb" in theirs}
    tables = {f"{start}pos_emb": theirs[f"{start}pos_emb"][0].float() for start in sides.values()}
    if wrong := [key for key, table_PD in tables.items() if table_PD.shape[1] != architecture.dim]:
        widths = ", ".join(str(tables[key].shape[1]) for key in wrong)
        raise ValueError(
            f"{', '.join(wrong)} have the width {widths}; the metadata implies dim {architecture.dim}. Download it again."
        )
    _same_size("positions", {key: theirs[key] for key in tables}, axis=1)
    kind = _kind(name, theirs, next(iter(tables.values())))
    positions, input_only = len(next(iter(tables.values()))), kind in INPUT_ONLY
    rows = {f"{start}{part}.weight" for start in sides.values() for part in ("token_emb", "to_logits")} & theirs.keys()
    vocabulary = 0 if input_only else _same_size("rows", {key: theirs[key] for key in sorted(rows)}, axis=0)
    is_sequential = kind in ("sequence", "vectors")
    shape: dict[str, Any] = {"max_length": positions} if is_sequential else {"grid": _grid(positions, image, architecture)}
    shape |= _vector_widths(name, theirs) if kind == "vectors" else {}
    if shape.get("grid", (0, 0))[0] == 1:
        _check_whole_square(next(iter(tables)), tables, architecture)
    both: Any = "both" if len(sides) == 2 or input_only else next(iter(sides))
    found = ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, sides=both, **shape)
    fixed_PD = position_table(found, architecture)
    for key, table_PD in tables.items():
        far = int(((table_PD - fixed_PD).abs() > NEAR).any(dim=1).sum())
        if 0 < 2 * far <= len(table_PD) and found.grid != (1, positions):
            raise ValueError(f"{key} is a sin-cos table except for {far} rows; it must be one or learned. Download it again.")
    learned = not all(torch.allclose(table_PD, fixed_PD, atol=FIXED, rtol=0) for table_PD in tables.values())
    known = TOKEN_MODALITIES.get(base_name(name))
    if (
        is_sequential and known and not learned
    ):  # the stored table is longer than any text, so it does not give the maximum length
        return found.model_copy(update={"max_length": min(positions, known.released_tokens)})
    return found.model_copy(update={"learned_positions": learned})


def _same_size(what: str, tensors: dict[str, Tensor], axis: int) -> int:
    """Return the size of an axis that all tensors must have.

    Raises:
        ValueError: They differ; the message names the one that differs from the others.
    """
    size = Tensors(tensors).commonest(*((key, axis) for key in tensors))
    if wrong := [key for key, tensor in tensors.items() if tensor.shape[axis] != size]:
        others = ", ".join(key for key in tensors if key not in wrong)
        raise ValueError(
            f"{wrong[0]} has the shape {tuple(tensors[wrong[0]].shape)}, {others} {size} {what}; they must be equal. "
            "Download it again."
        )
    return size


def _kind(name: str, theirs: Tensors, table_PD: Tensor) -> Literal["pixels", "grid", "sequence", "vectors"]:
    """Infer the kind of a modality from its layers and positions. With learned positions, grids are those named tok_…."""
    part = _content_part(name, theirs)
    if part == "proj.weight":
        return "pixels"
    if part.startswith("emb_proj"):
        return "vectors"
    is_sequential = torch.allclose(table_PD, sincos_1d(*table_PD.shape), atol=NEAR, rtol=0)
    return "grid" if name.startswith("tok_") and not is_sequential else "sequence"


def _vector_widths(name: str, theirs: Tensors) -> dict[str, int]:
    start = f"encoder_embeddings.{name}."
    if not _has_bottleneck(start, theirs):
        return {"vector_width": theirs[f"{start}emb_proj.weight"].shape[1]}
    places = ((f"{start}emb_proj.0.weight", 0), (f"{start}emb_proj.0.bias", 0), (f"{start}emb_proj.1.weight", 1))
    return {"vector_width": theirs[f"{start}emb_proj.0.weight"].shape[1], "vector_bottleneck": theirs.commonest(*places)}


def _grid(positions: int, image: tuple[int, int], architecture: ModelConfig) -> tuple[int, int]:
    """Return rows and columns: those of the image's patches if they match, else a square, else a single row."""
    rows, columns = (side // architecture.patch_size for side in image)
    root = math.isqrt(positions)
    return (rows, columns) if rows * columns == positions else (root, root) if root**2 == positions else (1, positions)


def _check_whole_square(key: str, tables: dict[str, Tensor], architecture: ModelConfig) -> None:
    """Check that a table that is no square is not the beginning of one, or longer than one."""
    table_PD = tables[key]
    for side in (math.isqrt(len(table_PD)), math.isqrt(len(table_PD)) + 1):
        square_PD = sincos_2d(side, side, architecture.dim)
        both = min(len(square_PD), len(table_PD))
        if both > 1 and torch.allclose(table_PD[:both], square_PD[:both], atol=NEAR, rtol=0):
            raise ValueError(
                f"{key} has {len(table_PD)} positions, but a grid of {side} × {side} needs {side**2}. Download it again."
            )


def _patch_size(theirs: Tensors, default: int) -> int:
    """Return the side of a patch in pixels, from the shape of the patch layers, or `default` without such layers."""
    widths = {key: theirs[key].shape[1] for key in theirs if key.endswith(".proj.weight") and key.startswith("encoder_emb")}
    sides = {key: math.isqrt(width // PIXEL_CHANNELS) for key, width in widths.items()}
    for key, width in sorted(widths.items()):
        if width != PIXEL_CHANNELS * sides[key] ** 2 or not width:
            raise ValueError(
                f"{key} has patches of {width} numbers; only square patches of {PIXEL_CHANNELS} channels are supported."
            )
    if len(set(sides.values())) > 1:
        found = ", ".join(f"{key} of {side}" for key, side in sorted(sides.items()))
        raise ValueError(f"its patches have several sides: {found} pixels; only one is supported.")
    return next(iter(sides.values()), default)


def _are_tied(theirs: Tensors, one: str, other: str) -> bool:
    """Return whether two tensors are equal in each modality that has both."""
    pairs = ((one.format(name), other.format(name)) for name in modality_names(theirs))
    return all(torch.equal(theirs[a], theirs[b]) for a, b in pairs if a in theirs and b in theirs)
