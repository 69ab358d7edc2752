"""Convert the metadata and tensor shapes of a released 4M model (apple/ml-4m) to our configuration, and back."""

# P positions of a modality, D width

import math
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.config import INPUT_ONLY, Activation, ModalityConfig, ModelConfig
from fourfold.model.embeddings import Side, position_table, sincos_1d
from fourfold.model.released.files import image_size, image_size_value

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


def config_of(values: dict[str, Any], theirs: dict[str, Tensor]) -> ModelConfig:
    """Return our configuration of a released checkpoint.

    Raises:
        ValueError: Settings are missing, contradict the tensors, or are not supported.
    """
    try:
        return _config_of(values, theirs)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in error.errors())
        raise ValueError(f"The settings of this checkpoint do not fit: {problems}") from error


def _config_of(values: dict[str, Any], theirs: dict[str, Tensor]) -> ModelConfig:
    fields: dict[str, Any] = {ours: values.get(key, default) for key, (ours, default) in FIELDS.items()}
    activation = str(values.get("act_layer", "GELU"))
    if activation not in ACTIVATIONS:
        raise ValueError(f"This checkpoint's feed-forward layers have {activation}; {', '.join(ACTIVATIONS)} are supported.")
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
    image = image_size(values.get("image_size", 224))
    modalities = tuple(_modality(name, theirs, image, architecture) for name in modality_names(theirs))
    if not modalities:
        raise ValueError("The checkpoint has no encoder_embeddings and no decoder_embeddings: it is not a 4M model.")
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


def modality_names(theirs: dict[str, Tensor]) -> list[str]:
    """Return the sorted names of the modalities in a checkpoint."""
    starts = tuple(f"{side}_embeddings." for side in SIDES.values())
    return sorted({key.split(".")[1] for key in theirs if key.startswith(starts)})


def is_of_norm(key: str, parameter: str) -> bool:
    """Return whether a key is the weight or bias (`parameter`) of a norm."""
    layer, _, last = key.rpartition(".")
    return last == parameter and "norm" in layer.rpartition(".")[2]


def present(theirs: dict[str, Tensor], key: str) -> Tensor:
    """Return a tensor of a checkpoint.

    Raises:
        ValueError: It is missing.
    """
    if key not in theirs:
        raise ValueError(f"The checkpoint lacks {key}.")
    return theirs[key]


def _modality(name: str, theirs: dict[str, Tensor], image: tuple[int, int], architecture: ModelConfig) -> ModalityConfig:
    sides = [ours for ours, side in SIDES.items() if f"{side}_embeddings.{name}.pos_emb" in theirs]
    if not sides:
        raise ValueError(f"The checkpoint has no positions (pos_emb) of {name!r}.")
    tables = [theirs[f"{SIDES[ours]}_embeddings.{name}.pos_emb"][0].float() for ours in sides]
    if any(table_PD.shape[1] != architecture.dim for table_PD in tables):
        widths = ", ".join(str(table_PD.shape[1]) for table_PD in tables)
        raise ValueError(f"The positions of {name!r} have the width {widths}; the metadata has dim {architecture.dim}.")
    kind = _kind(name, theirs, tables[0])
    positions, input_only = len(tables[0]), kind in INPUT_ONLY
    vocabulary = 0 if input_only else len(present(theirs, f"{SIDES[sides[0]]}_embeddings.{name}.token_emb.weight"))
    is_sequential = kind in ("sequence", "vectors")
    shape: dict[str, Any] = {"max_length": positions} if is_sequential else {"grid": _grid(positions, image, architecture)}
    shape |= _vector_widths(name, theirs) if kind == "vectors" else {}
    both: Any = "both" if len(sides) == 2 or input_only else sides[0]
    found = ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, sides=both, **shape)
    fixed_PD = position_table(found, architecture)
    learned = not all(torch.allclose(table_PD, fixed_PD, atol=FIXED, rtol=0) for table_PD in tables)
    known = TOKEN_MODALITIES.get(base_name(name))
    if (
        is_sequential and known and not learned
    ):  # the stored table is longer than any text, so it does not give the maximum length
        return found.model_copy(update={"max_length": min(positions, known.released_tokens)})
    return found.model_copy(update={"learned_positions": learned})


def _kind(name: str, theirs: dict[str, Tensor], table_PD: Tensor) -> Literal["pixels", "grid", "sequence", "vectors"]:
    """Infer the kind of a modality from its layers and positions. With learned positions, grids are those named tok_…."""
    start = f"encoder_embeddings.{name}."
    if f"{start}proj.weight" in theirs:
        return "pixels"
    if any(key.startswith(f"{start}emb_proj.") for key in theirs):
        return "vectors"
    is_sequential = torch.allclose(table_PD, sincos_1d(*table_PD.shape), atol=NEAR, rtol=0)
    return "grid" if name.startswith("tok_") and not is_sequential else "sequence"


def _vector_widths(name: str, theirs: dict[str, Tensor]) -> dict[str, int]:
    start = f"encoder_embeddings.{name}.emb_proj"
    if f"{start}.0.weight" not in theirs:
        return {"vector_width": present(theirs, f"{start}.weight").shape[1]}
    bottleneck, width = theirs[f"{start}.0.weight"].shape
    return {"vector_width": width, "vector_bottleneck": bottleneck}


def _grid(positions: int, image: tuple[int, int], architecture: ModelConfig) -> tuple[int, int]:
    """Return rows and columns: those of the image's patches if they match, else a square, else a single row."""
    rows, columns = (side // architecture.patch_size for side in image)
    root = math.isqrt(positions)
    return (rows, columns) if rows * columns == positions else (root, root) if root**2 == positions else (1, positions)


def _patch_size(theirs: dict[str, Tensor], default: int) -> int:
    """Return the side of a patch in pixels, from the shape of the patch layers, or `default` without such layers."""
    widths = {
        tensor.shape[1] for key, tensor in theirs.items() if key.endswith(".proj.weight") and key.startswith("encoder_emb")
    }
    sides = {math.isqrt(width // PIXEL_CHANNELS) for width in widths}
    if len(sides) > 1 or any(PIXEL_CHANNELS * side**2 not in widths for side in sides):
        found = ", ".join(map(str, sorted(widths)))
        raise ValueError(f"Patches of {found} numbers; square patches of {PIXEL_CHANNELS} channels and one size are supported.")
    return sides.pop() if sides else default


def _are_tied(theirs: dict[str, Tensor], one: str, other: str) -> bool:
    """Return whether two tensors are equal in each modality that has both."""
    pairs = ((one.format(name), other.format(name)) for name in modality_names(theirs))
    return all(torch.equal(theirs[a], theirs[b]) for a, b in pairs if a in theirs and b in theirs)
