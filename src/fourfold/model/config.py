"""Configuration of a 4M transformer. It is stored as JSON beside the weights.

Defaults are those of 4M (arXiv 2312.06647, appendix: SwiGLU, no biases, sin-cos temperature 10,000, N(0, 0.02) embeddings) at
size Ti. The settings of the small default model of `make run` are in conf/.
"""

from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.suggestions import unknown_name

Activation = Literal["silu", "gelu", "relu"]
Positive = Annotated[int, Field(ge=1)]
INPUT_ONLY = ("pixels", "vectors")  # kinds that are never predicted


class ModalityConfig(Config):
    """One modality of the transformer.

    `kind`: `pixels` are image patches, input only; `grid` tokens form an image; `sequence` tokens are text; `vectors` are a
    sequence of features, such as T5 embeddings of a caption (4M-21, arXiv 2406.09406), input only.
    `learned_positions`: learned vectors for each side instead of sin-cos, for tokens without spatial order (global features of
    4M-21).
    `interpolated_from`: the grid of pretraining, whose sin-cos table is interpolated to `grid`; see `at_image_size`.
    """

    name: str
    kind: Literal["pixels", "grid", "sequence", "vectors"]
    vocabulary_size: int = Field(default=0, ge=0)  # 0 for pixels and vectors
    vector_width: int | None = Field(default=None, ge=1)  # of vectors
    vector_bottleneck: int | None = Field(default=None, ge=1)  # width between two linear layers of vectors; None: one layer
    grid: tuple[Positive, Positive] | None = None  # rows, columns of patches or tokens; None for sequences and vectors
    max_length: int | None = Field(default=None, ge=1)  # tokens of a sequence as input or target, sentinels included
    learned_positions: bool = False
    interpolated_from: tuple[Positive, Positive] | None = Field(default=None, exclude_if=lambda value: value is None)
    sides: Literal["both", "input", "target"] = "both"  # that a released checkpoint has tables for; others have both

    @property
    def input_only(self) -> bool:
        """Whether it is never predicted."""
        return self.kind in INPUT_ONLY

    @property
    def can_be_target(self) -> bool:
        """Whether it can be predicted: a released checkpoint has a head for it."""
        return not self.input_only and self.sides != "input"

    @property
    def num_positions(self) -> int:
        """Number of positions: rows × columns, or the maximum length."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        assert self.max_length is not None
        return self.max_length

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        is_sequential = self.kind in ("sequence", "vectors")
        if is_sequential != (self.max_length is not None) or is_sequential == (self.grid is not None):
            raise ValueError(
                f"Modality {self.name!r} is {self.kind}: give `max_length` to sequences and vectors, `grid` to others."
            )
        if self.input_only != (self.vocabulary_size == 0):
            raise ValueError(
                f"Modality {self.name!r}: `vocabulary_size` must be 0 for pixels and vectors, positive for all others."
            )
        if (self.kind == "vectors") != (self.vector_width is not None):
            raise ValueError(f"Modality {self.name!r} is {self.kind}: vectors need `vector_width`, and only they may have it.")
        if self.interpolated_from is not None and (self.grid is None or self.learned_positions):
            raise ValueError(
                f"Modality {self.name!r}: only sin-cos positions of a grid can be `interpolated_from` another one."
            )
        if self.vector_bottleneck and self.kind != "vectors":
            raise ValueError(f"Modality {self.name!r} is {self.kind}: only vectors may have `vector_bottleneck`.")
        return self


# Sizes of 4M (arXiv 2312.06647, appendix): width, depth of each side, number of heads of width 64.
SIZES = {"Ti": (384, 6, 6), "S": (512, 8, 8), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (2048, 24, 32)}


class ArchitectureConfig(Config):
    """Architecture of an encoder–decoder without its modalities. `size: B` sets width, depths and heads to those of 4M-B."""

    dim: int = Field(default=384, ge=8)
    encoder_depth: int = Field(default=6, ge=1)
    decoder_depth: int = Field(default=6, ge=1)
    num_heads: int = Field(default=6, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)  # hidden width is ⌊2/3 · ratio · dim⌋ when gated, ratio · dim otherwise
    gated_mlp: bool = True  # SwiGLU; otherwise GELU
    activation: Activation = Field(default_factory=lambda data: "silu" if data["gated_mlp"] else "gelu")
    qkv_bias: bool = False
    projection_bias: bool = False  # after attention; the projection into the decoder's context always has one
    mlp_bias: bool = False
    norm_bias: bool = False
    qk_norm: bool = False
    num_registers: int = Field(default=0, ge=0)  # learned tokens before the encoder's input (Darcet et al., arXiv 2309.16588)
    patch_size: int = Field(default=16, ge=1)  # pixels
    patch_stem: Literal["linear", "conv"] = "linear"
    image_temperature: float = Field(default=1e4, gt=1)  # of the 2D sin-cos table; 20 tells neighbors apart on an 8 × 8 grid
    sequence_temperature: float = Field(default=1e4, gt=1)
    embedding_std: float = Field(default=0.02, gt=0)  # initial scale of token, modality and mask embeddings
    tied_heads: bool = True  # the heads are the decoder's token tables, as in 4M
    shared_modality_vectors: bool = True  # encoder and decoder share the modality vectors
    causal_targets: bool = False  # every target attends to earlier targets only, also in grids
    separate_targets: bool = True  # targets attend within their modality only; otherwise to earlier modalities too
    attention: Literal["auto", "sdpa", "matmul"] = "auto"
    recompute_blocks: bool = False  # activation checkpointing of each block: less memory, a third more time

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "size" not in values:
            return values
        given = {key: value for key, value in values.items() if key != "size"}
        if values["size"] not in SIZES:
            raise ValueError(f"`size` is {values['size']!r}. Allowed: {', '.join(SIZES)}.")
        dim, depth, num_heads = SIZES[values["size"]]
        return {"dim": dim, "encoder_depth": depth, "decoder_depth": depth, "num_heads": num_heads} | given


class ModelConfig(ArchitectureConfig):
    """An encoder–decoder with its modalities, whose order defines the indices in `MaskedBatch.*_modality`."""

    modalities: tuple[ModalityConfig, ...] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in index order."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def mlp_width(self) -> int:
        """Hidden width of the feed-forward layers."""
        width = int(self.mlp_ratio * self.dim)
        return 2 * width // 3 if self.gated_mlp else width

    def index(self, name: str) -> int:
        """Return the index of a modality; raises ValueError that suggests the nearest name."""
        if name not in self.names:
            raise ValueError(unknown_name("modality of this model", name, self.names))
        return self.names.index(name)

    def modality(self, name: str) -> ModalityConfig:
        """Return a modality's entry by name; raises ValueError that suggests the nearest name."""
        return self.modalities[self.index(name)]

    @property
    def pixel_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of the images of each modality of pixels, in the order of indices."""
        grids = {modality.name: modality.grid for modality in self.modalities if modality.kind == "pixels" and modality.grid}
        return {name: (rows * self.patch_size, columns * self.patch_size) for name, (rows, columns) in grids.items()}

    def pixel_windows(self, height: int, width: int) -> dict[int, tuple[int, int, int]]:
        """Return the location of each modality of pixels in the images of a batch: index → top, height, width.

        A batch has one tensor of pixels. If a model has several resolutions (super-resolution: `rgb@224` and `rgb@448`), the
        image of a sample holds one of them, in the top left corner, or all of them, from top to bottom in the order of indices.
        Modalities that do not fit into height × width are left out.
        """
        sizes = {self.index(name): size for name, size in self.pixel_sizes.items()}
        if len(sizes) <= 1:
            return dict.fromkeys(sizes, (0, height, width))
        tops = [0] * len(sizes)
        if (height, width) == (sum(rows for rows, _ in sizes.values()), max(columns for _, columns in sizes.values())):
            tops = [*accumulate((rows for rows, _ in sizes.values()), initial=0)]
        windows = {index: (top, *size) for top, (index, size) in zip(tops, sizes.items(), strict=False)}
        return {index: one for index, one in windows.items() if one[0] + one[1] <= height and one[2] <= width}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"Modality names must differ, got {', '.join(self.names)}.")
        if self.dim % self.num_heads:
            raise ValueError(f"`dim` {self.dim} must be a multiple of `num_heads` {self.num_heads}.")
        if self.patch_stem == "conv" and self.patch_size % 4:
            raise ValueError(f"`patch_stem` conv needs a `patch_size` that is a multiple of 4, got {self.patch_size}.")
        if self.dim % 4:
            raise ValueError(f"`dim` {self.dim} must be a multiple of 4 (2D sin-cos positions).")
        if all(modality.input_only for modality in self.modalities):
            raise ValueError("Pixels and vectors are input only: add at least one grid or sequence to predict.")
        if sum(modality.kind == "vectors" for modality in self.modalities) > 1:
            raise ValueError(
                "This model has several modalities of vectors; one is allowed, because a batch has one tensor of vectors."
            )
        return self

    def at_image_size(self, name: str, height: int, width: int) -> "ModelConfig":
        """Return the configuration for images of another size: the same weights, with interpolated positions.

        Args:
            name: a modality of pixels.
            height, width: of the images in pixels, multiples of the patch size.

        Raises:
            ValueError: the size is no multiple of the patch size.
        """
        patch = self.patch_size
        if height % patch or width % patch:
            raise ValueError(
                f"Images of {height} × {width} pixels have no whole number of patches. Choose multiples of {patch} pixels."
            )
        old, grid = self.modality(name), (height // patch, width // patch)
        if grid == old.grid:
            return self
        changed = old.model_copy(update={"grid": grid, "interpolated_from": old.interpolated_from or old.grid})
        modalities = tuple(changed if modality is old else modality for modality in self.modalities)
        return type(self).model_validate(self.model_dump() | {"modalities": [m.model_dump() for m in modalities]})
