"""The table of modalities: the name of each, and how it is stored, normalized and tokenized.

A *label* is what a sample stores (`depth`, an array in meters). A *token modality* is what the transformer reads and predicts
(`tok_depth`, an 8 × 8 or 14 × 14 grid of codes). RGB has two token modalities: pixel patches (`rgb`, input only) and codes
(`tok_rgb`). Sequences (`caption`, `det`) have the same name in both roles. Sizes are those of the released models, 4M-7 (arXiv
2312.06647) and 4M-21 (arXiv 2406.09406); smaller configurations override vocabularies, never names. `tok_depth@448` is the
same modality at another resolution. To add a modality, see docs/guides/add-a-modality.md.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from fourfold.suggestions import unknown_name

SOURCE_LABELS = ("rgb", "caption")  # what a source provides; all other labels are made from these

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RELEASED_PIXELS = 224  # side of the images that released sizes refer to


@dataclass(frozen=True)
class Label:
    """How a sample stores one modality.

    Attributes:
        name: name of the folder in a shard set.
        kind: the encoding: a key of `fourfold.tokenizers.formats.DENSE_FORMATS`, or of `SEQUENCE_FORMATS` in
            `fourfold.tokenizers.text.sequences`.
        extension: of the member of a shard.
        dtype: of the stored array; "str" or "json" for other values.
        channels: last axis of dense arrays (H, W, channels); 0 for (H, W), or if it depends on the configuration.
        labeled_by: where the values come from, for people.
        reconstruction_loss: of its VQ-VAE; None for sequences.
        normalized: how its tokenizer normalizes stored values, for people.
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
    """How the transformer reads and predicts one label.

    Attributes:
        name: e.g. `tok_depth`.
        label: name of the label.
        kind: decides masking, positions and attention. `pixels` are patches, input only; `grid` tokens form an image;
            `sequence` tokens are text; `vectors` are a sequence of features, input only.
        released_vocabulary: number of codes in the released models; 0 for inputs without codes.
        released_tokens: number of tokens in the released models, at 224 pixels; for a sequence with its EOS and a sentinel.
        learned_positions: one learned vector for each position instead of sin-cos, for tokens that form no image.
        chunk_length: a sequence is masked in whole chunks of this many tokens.
        shuffled: the order of the chunks has no meaning; it is drawn again at each masking.
        vector_width: width of `vectors`.
        missing_if_empty: an empty sequence means that nothing is known, not that there is nothing to name, e.g. an image
            without a caption. Masking leaves it out of a sample.
    """

    name: str
    label: str
    kind: Literal["pixels", "grid", "sequence", "vectors"]
    released_vocabulary: int
    released_tokens: int
    learned_positions: bool = False
    chunk_length: int = 1
    shuffled: bool = False
    vector_width: int | None = None
    missing_if_empty: bool = False

    @property
    def released_grid(self) -> tuple[int, int] | None:
        """Rows and columns of tokens or patches at 224 pixels; None for sequences and vectors."""
        if self.kind not in ("pixels", "grid"):
            return None
        side = math.isqrt(self.released_tokens)
        return side, side

    @property
    def input_only(self) -> bool:
        """Whether the model can read it but not predict it."""
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
        # not in 4M: a global feature of the default teacher, as 4M-21 has of DINOv2 and ImageBind
        Label("clip_global", "vector", "npy", "float16", 0, "teacher (image embedding)", "cosine", "unit length"),
        # not in 4M: joints in the image, where 4M-21 has the parameters of a body model
        Label("keypoints", "keypoints", "json", "json", 0, "teacher (joints 0-1)", None, "coordinates in bins of v0 and v1"),
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
        TokenModality("caption", "caption", "sequence", 30000, 256, missing_if_empty=True),
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
        # not in 4M
        TokenModality("tok_clip_global", "clip_global", "grid", 8192, 16, learned_positions=True),
        TokenModality("keypoints", "keypoints", "sequence", 30000, 120),
    )
}
FOUR_M_7 = ("rgb", "tok_rgb", "tok_depth", "tok_normal", "tok_semseg", "tok_clip", "caption", "det")


def register_modality(label: Label, *token_modalities: TokenModality) -> None:
    """Add a label and the token modalities that are made from it, e.g. from the `register()` of a plug-in.

    Args:
        label: how a sample stores the modality.
        token_modalities: how the transformer sees it; each names the label.

    Raises:
        ValueError: a name is taken, or a token modality names another label.
    """
    taken = [label.name] if label.name in LABELS else [one.name for one in token_modalities if one.name in TOKEN_MODALITIES]
    if taken:
        raise ValueError(f"Two modalities are called {taken[0]!r}. Give one of them another name.")
    for modality in token_modalities:
        if modality.label != label.name:
            raise ValueError(f"Token modality {modality.name!r} names label {modality.label!r}; it must be {label.name!r}.")
    LABELS[label.name] = label
    TOKEN_MODALITIES.update((modality.name, modality) for modality in token_modalities)


def label(name: str) -> Label:
    """Return the entry of a label; raises ValueError that suggests the nearest name when there is none."""
    return LABELS[_require_known(name, LABELS, "label")]


def token_modality(name: str) -> TokenModality:
    """Return the entry of a token modality; `tok_depth@448` is `tok_depth` with the tokens of an image of 448 pixels.

    Raises:
        ValueError: the name is unknown (the nearest is suggested), or the modality cannot have this resolution.
    """
    base, at, pixels = name.partition("@")
    entry = TOKEN_MODALITIES[_require_known(base, TOKEN_MODALITIES, "modality")]
    if not at:
        return entry
    if entry.released_grid is None or entry.learned_positions:
        raise ValueError(f"{name!r}: {base!r} is no image, so it has no resolution. Write {base!r}.")
    side, rest = divmod(entry.released_grid[0] * int(pixels), RELEASED_PIXELS) if pixels.isdecimal() else (0, 1)
    if rest or not side:
        step = RELEASED_PIXELS // entry.released_grid[0]
        raise ValueError(f"{name!r}: after @ must be the image side in pixels, a multiple of {step}, e.g. {base}@448.")
    return replace(entry, name=name, released_tokens=side * side)


def base_name(name: str) -> str:
    """Return the name of a modality without its resolution: `tok_depth@448` → `tok_depth`."""
    return name.partition("@")[0]


def target_of(label_name: str) -> TokenModality:
    """Return the token modality that produces a label: `depth` → `tok_depth`, `rgb` → `tok_rgb`, `caption` → `caption`.

    Raises:
        ValueError: the label is unknown, or can only be an input.
    """
    _require_known(label_name, LABELS, "label")
    for modality in TOKEN_MODALITIES.values():
        if modality.label == label_name and not modality.input_only:
            return modality
    raise ValueError(
        f"{label_name!r} can only be an input: it has no token modality that the model predicts. Choose another target."
    )


def _require_known(name: str, table: dict, noun: str) -> str:
    if name not in table:
        raise ValueError(unknown_name(noun, name, table, "Add it in fourfold/modalities."))
    return name
