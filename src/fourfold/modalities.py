"""The one table of modalities: what each is called, how it is stored, normalised and turned into tokens.

Two names for one thing: a *label* is what a sample carries (`depth`, a metric array), a *token* modality is what the
transformer sees (`tok_depth`, an 8 × 8 or 14 × 14 grid of codes). RGB is seen twice: as pixel patches (`rgb`, input only)
and as codes (`tok_rgb`). Sequences (`caption`, `det`) keep their name. Sizes are those of 4M-7 (arXiv 2312.06647); a
smaller configuration overrides vocabularies, never names. Adding a modality is one entry here.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Label:
    """What a sample carries for one modality.

    `extension` and `dtype` say how it is stored in a shard; `channels` is the last axis of dense arrays (H, W, channels),
    0 where there is none (H, W) or it depends on the configuration.
    """

    name: str
    kind: Literal["image", "map", "feature", "text", "boxes"]
    extension: str
    dtype: str
    channels: int
    labelled_by: str
    reconstruction_loss: Literal["mse", "smooth_l1", "cross_entropy"] | None


@dataclass(frozen=True)
class TokenModality:
    """What the transformer sees of one label.

    `kind` decides masking, positions and attention: `pixels` are patches and input only; `grid` tokens form an image;
    `sequence` tokens are text. `released_vocabulary` and `released_tokens` are those of 4M-7 at 224 px.
    """

    name: str
    label: str
    kind: Literal["pixels", "grid", "sequence"]
    released_vocabulary: int
    released_tokens: int


LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        Label("rgb", "image", "png", "uint8", 3, "the source", "mse"),
        Label("caption", "text", "txt", "str", 0, "the source", None),
        Label("depth", "map", "npy", "float16", 0, "teacher (metres along the viewing axis)", "smooth_l1"),
        Label("normal", "map", "png", "uint8", 3, "heuristic on depth; unit vectors, camera axes, [-1, 1] as 0-255", "mse"),
        Label("semseg", "map", "png", "uint8", 0, "teacher (class ids)", "cross_entropy"),
        Label("clip", "feature", "npy", "float16", 0, "teacher (patch features)", "smooth_l1"),
        Label("det", "boxes", "json", "json", 0, "teacher (boxes 0-1, class, score)", None),
    )
}

TOKEN_MODALITIES: dict[str, TokenModality] = {
    modality.name: modality
    for modality in (
        TokenModality("rgb", "rgb", "pixels", 0, 196),
        TokenModality("tok_rgb", "rgb", "grid", 16384, 196),
        TokenModality("tok_depth", "depth", "grid", 8192, 196),
        TokenModality("tok_normal", "normal", "grid", 8192, 196),
        TokenModality("tok_semseg", "semseg", "grid", 4096, 196),
        TokenModality("tok_clip", "clip", "grid", 8192, 196),
        TokenModality("caption", "caption", "sequence", 30000, 256),
        TokenModality("det", "det", "sequence", 30000, 256),
    )
}


def label(name: str) -> Label:
    """Return one label's entry; raises ValueError that suggests the nearest name."""
    return LABELS[_known(name, LABELS, "label")]


def token_modality(name: str) -> TokenModality:
    """Return one token modality's entry; raises ValueError that suggests the nearest name."""
    return TOKEN_MODALITIES[_known(name, TOKEN_MODALITIES, "modality")]


def target_of(label_name: str) -> TokenModality:
    """Return what the model predicts to produce a label: `depth` → `tok_depth`, `rgb` → `tok_rgb`, `caption` → `caption`."""
    _known(label_name, LABELS, "label")
    return next(m for m in TOKEN_MODALITIES.values() if m.label == label_name and m.kind != "pixels")


def _known(name: str, table: dict, noun: str) -> str:
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown {noun} {name!r}.{hint} Known: {', '.join(sorted(table))}. Add it in fourfold/modalities.py.")
    return name
