"""The one table of modalities: what each is called, how it is stored, normalized and turned into tokens.

Two names for one thing: a *label* is what a sample carries (`depth`, a metric array), a *token* modality is what the
transformer sees (`tok_depth`, an 8 × 8 or 14 × 14 grid of codes). RGB is seen twice: as pixel patches (`rgb`, input only)
and as codes (`tok_rgb`). Sequences (`caption`, `det`) keep their name. Sizes are those of the released models, 4M-7 (arXiv
2312.06647) and 4M-21 (arXiv 2406.09406); a smaller configuration overrides vocabularies, never names. `tok_depth@448` is the
same modality at another resolution. Adding a modality is one entry in each table, and one encoding if its kind is new.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from fourfold.suggestions import unknown_name

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


RELEASED_PIXELS = 224  # side of the images that released sizes refer to


@dataclass(frozen=True)
class Label:
    """What a sample carries for one modality.

    `kind` names its encoding: a dense one of `fourfold.tokenizers.formats`, or a sequence of
    `fourfold.tokenizers.text.sequences`.
    `extension` and `dtype` say how it is stored in a shard; `channels` is the last axis of dense arrays (H, W, channels),
    0 where there is none (H, W) or it depends on the configuration. `normalized` is what its tokenizer sees of a stored value.
    """

    name: str
    kind: str
    extension: str
    dtype: str
    channels: int
    labeled_by: str
    reconstruction_loss: Literal["mse", "smooth_l1", "cross_entropy", "cosine"] | None
    normalized: str


@dataclass(frozen=True)
class TokenModality:
    """What the transformer sees of one label.

    `kind` decides masking, positions and attention: `pixels` are patches and input only; `grid` tokens form an image;
    `sequence` tokens are text; `vectors` are a sequence of features and input only. `released_vocabulary` and
    `released_tokens` are those of 4M at 224 px; a sequence's count its EOS and a sentinel.
    """

    name: str
    label: str
    kind: Literal["pixels", "grid", "sequence", "vectors"]
    released_vocabulary: int
    released_tokens: int
    learned_positions: bool = False  # tokens that form no image have a learned vector per place instead of sin-cos
    chunk_length: int = 1  # a sequence is masked in whole chunks of so many tokens
    shuffled: bool = False  # the order of the chunks means nothing and is drawn anew at each masking
    vector_width: int | None = None  # of `vectors`

    @property
    def released_grid(self) -> tuple[int, int] | None:
        """Rows and columns of tokens or patches at 224 px; None for what lies in a row."""
        if self.kind not in ("pixels", "grid"):
            return None
        side = math.isqrt(self.released_tokens)
        return side, side

    @property
    def input_only(self) -> bool:
        """Whether it can be seen but not predicted."""
        return self.kind in ("pixels", "vectors")


CENTERED = "0-255 as [-1, 1]: mean = std = 0.5"
AS_TEXT = "WordPiece"
STANDARDIZED = "per channel by the statistics of the training set"

LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        # 4M-7
        Label("rgb", "image", "png", "uint8", 3, "the source", "mse", f"{CENTERED}; as patches by IMAGENET_MEAN and _STD"),
        Label("caption", "text", "txt", "str", 0, "the source", None, AS_TEXT),
        Label("depth", "depth", "npy", "float16", 0, "teacher (meters along the viewing axis)", "smooth_l1", "log meters"),
        Label("normal", "normals", "png", "uint8", 3, "heuristic on depth (unit vectors, camera axes)", "mse", CENTERED),
        Label("semseg", "classes", "png", "uint8", 0, "teacher (class ids)", "cross_entropy", "one-hot"),
        Label("clip", "features", "npy", "float16", 0, "teacher (patch features)", "smooth_l1", STANDARDIZED),
        Label("det", "boxes", "json", "json", 0, "teacher (boxes 0-1, class, score)", None, "sides in bins of v0 to v3"),
        # 4M-21
        Label("canny_edge", "edges", "png", "uint8", 0, "Canny (1986) on gray", "smooth_l1", CENTERED),
        Label("sam_edge", "edges", "png", "uint8", 0, "Canny on the masks of SAM", "smooth_l1", CENTERED),
        Label("dinov2", "features", "npy", "float16", 768, "DINOv2-B/14 patch features", "smooth_l1", STANDARDIZED),
        Label("imagebind", "features", "npy", "float16", 1280, "ImageBind-H/14 patch features", "smooth_l1", STANDARDIZED),
        Label("dinov2_global", "vector", "npy", "float16", 768, "DINOv2-B/14 class token", "cosine", "unit length"),
        Label("imagebind_global", "vector", "npy", "float16", 1280, "ImageBind-H/14 class token", "cosine", "unit length"),
        Label("t5_caption", "embeddings", "npy", "float16", 4096, "T5-XXL on the caption", None, "not at all"),
        Label("color_palette", "palette", "json", "json", 0, "k-means on the pixels", None, "0-255 in bins of v0"),
        Label("metadata", "metadata", "json", "json", 0, "arithmetic on image, caption and other labels", None, "bins by type"),
        Label("human_poses", "poses", "json", "json", 0, "4D-Humans (SMPL parameters)", None, "parameters in bins of v0"),
        Label("sam_instance", "instances", "json", "json", 0, "SAM (polygons, mask tokens)", None, "pixels as v0 to v3"),
        # ours: a global feature, as 4M-21 has of DINOv2 and ImageBind, of the teacher that is at hand
        Label("clip_global", "vector", "npy", "float16", 0, "teacher (image embedding)", "cosine", "unit length"),
    )
}

TOKEN_MODALITIES: dict[str, TokenModality] = {
    modality.name: modality
    for modality in (
        # 4M-7
        TokenModality("rgb", "rgb", "pixels", 0, 196),
        TokenModality("tok_rgb", "rgb", "grid", 16384, 196),
        TokenModality("tok_depth", "depth", "grid", 8192, 196),
        TokenModality("tok_normal", "normal", "grid", 8192, 196),
        TokenModality("tok_semseg", "semseg", "grid", 4096, 196),
        TokenModality("tok_clip", "clip", "grid", 8192, 196),
        TokenModality("caption", "caption", "sequence", 30000, 256),
        TokenModality("det", "det", "sequence", 30000, 256),
        # 4M-21; both edges share one tokenizer, and all sequences the vocabulary of captions
        TokenModality("tok_canny_edge", "canny_edge", "grid", 8192, 196),
        TokenModality("tok_sam_edge", "sam_edge", "grid", 8192, 196),
        TokenModality("tok_dinov2", "dinov2", "grid", 8192, 256),
        TokenModality("tok_imagebind", "imagebind", "grid", 8192, 256),
        TokenModality("tok_dinov2_global", "dinov2_global", "grid", 8192, 16, learned_positions=True),
        TokenModality("tok_imagebind_global", "imagebind_global", "grid", 8192, 16, learned_positions=True),
        TokenModality("t5_caption", "t5_caption", "vectors", 0, 77, vector_width=4096),
        TokenModality("color_palette", "color_palette", "sequence", 30000, 23),
        TokenModality("metadata", "metadata", "sequence", 30000, 40, chunk_length=2, shuffled=True),
        TokenModality("human_poses", "human_poses", "sequence", 30000, 275),
        TokenModality("sam_instance", "sam_instance", "sequence", 30000, 290),
        # ours
        TokenModality("tok_clip_global", "clip_global", "grid", 8192, 16, learned_positions=True),
    )
}
FOUR_M_7 = ("rgb", "tok_rgb", "tok_depth", "tok_normal", "tok_semseg", "tok_clip", "caption", "det")


def label(name: str) -> Label:
    """Return one label's entry; raises ValueError that suggests the nearest name."""
    return LABELS[_known(name, LABELS, "label")]


def token_modality(name: str) -> TokenModality:
    """Return one token modality's entry; `tok_depth@448` is `tok_depth` with the tokens of images of 448 pixels.

    Raises ValueError for an unknown name (it suggests the nearest), or a resolution that the modality cannot have.
    """
    base, at, pixels = name.partition("@")
    entry = TOKEN_MODALITIES[_known(base, TOKEN_MODALITIES, "modality")]
    if not at:
        return entry
    if entry.released_grid is None or entry.learned_positions:
        raise ValueError(f"{name!r}: {base!r} forms no image, so it has no resolution. Write {base!r}.")
    side, rest = divmod(entry.released_grid[0] * int(pixels), RELEASED_PIXELS) if pixels.isdecimal() else (0, 1)
    if rest or not side:
        step = RELEASED_PIXELS // entry.released_grid[0]
        raise ValueError(f"{name!r}: after the @ comes the side of the image in pixels, a multiple of {step}, e.g. {base}@448.")
    return replace(entry, name=name, released_tokens=side * side)


def base_name(name: str) -> str:
    """Return the name in the table of a modality at some resolution: `tok_depth@448` → `tok_depth`."""
    return name.partition("@")[0]


def target_of(label_name: str) -> TokenModality:
    """Return what the model predicts to produce a label: `depth` → `tok_depth`, `rgb` → `tok_rgb`, `caption` → `caption`.

    Raises ValueError for a label that can only be an input.
    """
    _known(label_name, LABELS, "label")
    for modality in TOKEN_MODALITIES.values():
        if modality.label == label_name and not modality.input_only:
            return modality
    raise ValueError(f"{label_name!r} can be shown to the model but not asked for: nothing turns predictions into it.")


def _known(name: str, table: dict, noun: str) -> str:
    if name not in table:
        raise ValueError(unknown_name(noun, name, table, "Add it in fourfold/modalities."))
    return name
