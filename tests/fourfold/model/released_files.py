"""Released files and batches with random content, and the key names and metadata of 4M, written without our modules."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ModelConfig

from .plain_reference import Batch, Slot

VALUES = {
    "dim": 24,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "num_heads": 3,
    "mlp_ratio": 4.0,
    "gated_mlp": True,
    "act_layer": "SiLU",
    "qkv_bias": False,
    "proj_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "qk_norm": False,
    "decoder_causal_mask": False,
    "decoder_sep_mask": True,
    "num_register_tokens": 0,
    "share_modality_embeddings": True,
    "image_size": 24,
    "patch_size": 8,
}
# name → kind, vocabulary (of vectors: width), grid or length, and what is unusual: input, target (only), learned
SMALL = {
    "rgb@224": ("pixels", 0, (3, 3), ""),
    "tok_depth@224": ("grid", 11, (3, 3), ""),
    "tok_normal@224": ("grid", 7, (3, 3), ""),
    "caption": ("sequence", 13, 9, ""),
    "det": ("sequence", 17, 9, ""),
}
TEXT_ROWS = 512  # of a sin-cos table, whatever the length


def sincos(length: int, dim: int) -> Tensor:
    angle = torch.arange(length).float()[:, None] * (1.0 / 10000.0 ** (torch.arange(dim // 2).float() / (dim // 2)))
    return torch.cat([angle.sin(), angle.cos()], 1)


def sincos_grid(rows: int, columns: int, dim: int) -> Tensor:
    """Return the table of the 4M code: column by column, also where rows and columns differ."""
    first, second = torch.arange(columns).repeat_interleave(rows), torch.arange(rows).repeat(columns)
    table = [sincos(max(rows, columns), dim // 2)[places] for places in (first, second)]
    return torch.cat(table, 1)


def checkpoint(values: dict, modalities: dict, seed: int = 0, ties: bool = True) -> dict[str, Tensor]:
    """Return tensors under released names; `ties`: parameters that training ties have equal values."""
    draw = torch.Generator().manual_seed(seed)
    dim, found = values["dim"], dict[str, Tensor]()

    def add(key: str, *shape: int, around: float = 0.0) -> None:
        scale = 0.3 if len(shape) != 2 or "emb" in key else 1.5 / math.sqrt(shape[1])
        found[key] = around + scale * torch.randn(shape, generator=draw)

    def linear(key: str, out: int, into: int, bias: bool) -> None:
        add(f"{key}.weight", out, into)
        if bias:
            add(f"{key}.bias", out)

    def norm(key: str, width: int = dim) -> None:
        add(f"{key}.weight", width, around=1.0)
        found[f"{key}.bias"] = torch.zeros(width)
        if values["norm_bias"]:
            add(f"{key}.bias", width)

    def attention(key: str, parts: dict[str, int]) -> None:
        for part, multiple in parts.items():
            linear(f"{key}.{part}", multiple * dim, dim, values["qkv_bias"])
        linear(f"{key}.proj", dim, dim, values["proj_bias"])
        for part in ("q_norm", "k_norm") if values["qk_norm"] else ():
            norm(f"{key}.{part}", dim // values["num_heads"])

    add("mask_token", 1, 1, dim)
    if values["num_register_tokens"]:
        add("register_tokens", 1, values["num_register_tokens"], dim)
    hidden = int(values["mlp_ratio"] * dim)
    hidden = int(2 * hidden / 3) if values["gated_mlp"] else hidden
    for side, norms in (("encoder", ("norm1", "norm2")), ("decoder", ("norm1", "query_norm", "context_norm", "norm2"))):
        for i in range(values[f"{side}_depth"]):
            for name in norms:
                norm(f"{side}.{i}.{name}")
            attention(f"{side}.{i}.{'attn' if side == 'encoder' else 'self_attn'}", {"qkv": 3})
            if side == "decoder":
                attention(f"{side}.{i}.cross_attn", {"q": 1, "kv": 2})
            for layer in ("fc1", "fc3") if values["gated_mlp"] else ("fc1",):
                linear(f"{side}.{i}.mlp.{layer}", hidden, dim, values["mlp_bias"])
            linear(f"{side}.{i}.mlp.fc2", dim, hidden, values["mlp_bias"])
        norm(f"{side}_norm")
    linear("decoder_proj_context", dim, dim, True)
    for side in ("encoder", "decoder"):
        for name, (kind, size, shape, unusual) in modalities.items():
            if (side == "encoder" and "target" in unusual) or (
                side == "decoder" and (kind in ("pixels", "vectors") or "input" in unusual)
            ):
                continue
            p = f"{side}_embeddings.{name}"
            add(f"{p}.mod_emb", 1, 1, dim)
            add(f"{p}.pos_emb", 1, shape if isinstance(shape, int) else shape[0] * shape[1], dim)
            if "learned" not in unusual:
                table = sincos(TEXT_ROWS, dim) if isinstance(shape, int) else sincos_grid(*shape, dim)
                found[f"{p}.pos_emb"] = table[None]
            if kind == "pixels":
                linear(f"{p}.proj", dim, 3 * values.get("true_patch_size", values["patch_size"]) ** 2, False)
            elif kind == "vectors" and "bottleneck" in unusual:
                linear(f"{p}.emb_proj.0", 4, size, True)
                linear(f"{p}.emb_proj.1", dim, 4, True)
            elif kind == "vectors":
                linear(f"{p}.emb_proj", dim, size, True)
            else:
                add(f"{p}.token_emb.weight", size, dim)
            if side == "decoder":
                add(f"{p}.to_logits.weight", size, dim)
            if ties and side == "decoder":
                found[f"{p}.mod_emb"] = found.get(f"encoder_embeddings.{name}.mod_emb", found[f"{p}.mod_emb"]).clone()
                found[f"{p}.to_logits.weight"] = found[f"{p}.token_emb.weight"].clone()
    return found


def write(tensors: dict[str, Tensor], values: dict, modalities: dict, path: Path) -> Path:
    inputs = [name for name, entry in modalities.items() if "target" not in entry[3]]
    targets = [name for name, entry in modalities.items() if entry[0] in ("grid", "sequence") and "input" not in entry[3]]
    metadata = values | {"domains_in": sorted(inputs), "domains_out": sorted(targets)}
    save_file(tensors, path, {key: str(value) for key, value in metadata.items() if key != "true_patch_size"})
    return path


def batch_of(modalities: dict, values: dict, size: int = 2, seed: int = 0) -> Batch:
    """Return random content and masks in the layout of the 4M code's masking."""
    draw = torch.Generator().manual_seed(seed)

    def some(places: int, share: float) -> Tensor:
        return torch.rand(size, places, generator=draw) < share

    batch: Batch = {}
    for name, (kind, vocabulary, shape, _) in modalities.items():
        if kind in ("pixels", "grid"):
            places = shape[0] * shape[1]
            used = some(places, 0.4)
            wanted, side = some(places, 0.6) & ~used, values.get("true_patch_size", values["patch_size"])
            pixels = torch.randn(size, 3, shape[0] * side, shape[1] * side, generator=draw)
            ids = torch.randint(max(vocabulary, 1), (size, *shape), generator=draw)
            span = torch.zeros(size, places, dtype=torch.int32)
            for b in range(size):
                if wanted[b].any():
                    span[b, int(wanted[b].nonzero()[0, 0])] = int(wanted[b].sum())
            parts = {"tensor": pixels if kind == "pixels" else ids}
        elif kind == "vectors":
            used, parts = some(shape, 0.6), {"tensor": torch.randn(size, shape, vocabulary, generator=draw)}
            wanted = torch.zeros_like(used)
            span = wanted.int()
        else:
            length = 2 * (shape + 1)
            counts = torch.randint(shape // 2, (2, size), generator=draw)
            place = torch.arange(length)
            used = place < counts[0][:, None]
            wanted = (place >= shape // 2) & (place < shape // 2 + 2 + counts[1][:, None])
            span = wanted.int()
            parts = {"tensor": torch.randint(1, vocabulary, (size, length), generator=draw).int()}
        batch[name] = parts | {"input_mask": ~used, "target_mask": ~wanted, "decoder_attention_mask": span}
    return batch


def as_ours(
    sides: list[tuple[list[Slot], list[Slot]]], batch: Batch, modalities: dict, config: ModelConfig, max_length: dict[str, int]
) -> MaskedBatch:
    """Return the slots that the plain computation selected as our batch."""
    widths = [max(len(side[i]) for side in sides) for i in (0, 1)]
    columns = [torch.zeros(len(sides), widths[i], dtype=torch.int64) for i in (0, 0, 0, 1, 1, 1, 1)]
    columns[0].fill_(PADDING_MODALITY), columns[3].fill_(PADDING_MODALITY)
    for b, (inputs, targets) in enumerate(sides):
        for n, slot in enumerate(inputs):
            in_a_row = modalities[slot.name][0] in ("sequence", "vectors")
            row = (config.index(slot.name), slot.rank if in_a_row else slot.source, slot.token)
            for column, value in zip(columns[:3], row, strict=True):
                column[b, n] = value
        for m, slot in enumerate(targets):
            grid = modalities[slot.name][0] == "grid"
            place = slot.source if grid else slot.rank if slot.rank < max_length[slot.name] else 0
            for column, value in zip(columns[3:], (config.index(slot.name), place, slot.token, slot.target), strict=True):
                column[b, m] = value
    images = [batch[name]["tensor"].permute(0, 2, 3, 1) for name in config.names if modalities[name][0] == "pixels"]
    vectors = [batch[name]["tensor"] for name in config.names if modalities[name][0] == "vectors"]
    return MaskedBatch(*columns, below_each_other(images) if images else None, vectors[0] if vectors else None)


def below_each_other(images: list[Tensor]) -> Tensor:
    widest = max(image.shape[2] for image in images)
    return torch.cat([torch.nn.functional.pad(image, (0, 0, 0, widest - image.shape[2])) for image in images], dim=1)
