"""Settings of all tokenizers of a run; the defaults are those of the embedded run: 64 × 64 pixels, 8 × 8 tokens."""

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.crops import CropConfig
from fourfold.modalities import LABELS, ClassTable, label, target_of, token_modality
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig, VisualTokenizerConfig
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig

MAX_SEQUENCE_TOKENS = 1024


def is_image(name: str) -> bool:
    """Return whether a label has a value for each pixel: neither a feature map nor a vector."""
    return label(name).reconstruction_loss is not None and label(name).kind not in ("features", "vector")


def _is_diffusible(name: str) -> bool:
    """Return whether a label is an image of real numbers, to which Gaussian noise can be added."""
    return is_image(name) and label(name).reconstruction_loss in ("mse", "smooth_l1")


def _default_visual() -> dict[str, VisualTokenizerConfig]:
    """Return the VQ-VAEs of the embedded run.

    Measured to fit into a minute on two cores. Colors need the most codes and steps; CLIP features lie on the token
    grid already and need the fewest steps.
    """
    return {
        "rgb": VisualTokenizerConfig(codebook_size=1024, steps=360, decoder_steps=90),
        "depth": VisualTokenizerConfig(steps=240, decoder_steps=60),
        "normal": VisualTokenizerConfig(steps=240, decoder_steps=60),
        "semseg": VisualTokenizerConfig(steps=300, decoder_steps=70),
        "clip": VisualTokenizerConfig(codebook_size=512, steps=200, decoder_steps=50),
    }


class TokenizersConfig(Config):
    """All tokenizers of a run, and how its shards are turned into tokens."""

    grid: tuple[int, int] = Field((8, 8), description="tokens of an image, rows and columns; 4M: 14 × 14")
    num_classes: int | None = Field(
        None, ge=2, le=256, description="class ids of semantic segmentation; None: those of the labels' class table"
    )
    trained_side: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="pixels per side at which the VQ-VAEs of images are trained; None: as stored. With fewer, position "
        "embeddings are resized for the stored size (4M trains at 224 and also uses 448)",
    )
    resolutions: dict[str, tuple[int, ...]] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="label → sides in pixels, below the stored one, of further modalities: {rgb: [32]} adds `tok_rgb@32` and "
        "the pixels `rgb@32`",
    )
    visual: dict[str, VisualTokenizerConfig] = Field(
        default_factory=_default_visual, description="dense label → its VQ-VAE; replaces the default as a whole"
    )
    diffusion: dict[str, DiffusionDecoderConfig] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="label (rgb, depth, normal) → an additional diffusion decoder; none by default",
    )
    text: TextTokenizerConfig = TextTokenizerConfig()
    sequences: dict[str, int] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="labels besides captions and boxes that use the text vocabulary → maximum number of tokens, without EOS",
    )
    vectors: dict[str, tuple[int, int]] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="labels that the model reads as vectors, not as ids, e.g. t5_caption → maximum length, width",
    )
    crops: CropConfig = CropConfig()
    max_training_samples: int = Field(8000, ge=1, description="held in memory, one modality at a time")
    batch_size: int = Field(100, ge=1, description="images encoded or decoded at once")

    def grid_of(self, name: str) -> tuple[int, int]:
        """Return rows and columns of the tokens of a dense label at its stored size."""
        if label(name).kind != "vector":
            return self.grid
        # The tokens of a vector form no image; its modality fixes their number.
        grid = target_of(name).released_grid
        assert grid is not None
        return grid

    def with_classes_of(self, table: ClassTable) -> "TokenizersConfig":
        """Return the settings with class names and numbers that are not set taken from the labels' class table."""
        num_classes = table.num_classes if self.num_classes is None else self.num_classes
        return self.with_box_names_of(table).model_copy(update={"num_classes": num_classes})

    def with_box_names_of(self, table: ClassTable) -> "TokenizersConfig":
        """Return the settings with the names of boxes, if they are not set, taken from a class table."""
        if self.text.object_classes is not None:
            return self
        text = TextTokenizerConfig(**self.text.model_dump() | {"object_classes": table.thing_names})
        return self.model_copy(update={"text": text})

    @model_validator(mode="after")
    def _sequences_can_be_masked(self) -> "TokenizersConfig":
        for name, length in self.sequences.items():
            if target_of(name).kind != "sequence" or name in ("caption", "det"):
                raise ValueError(
                    f"sequences.{name}: {name!r} is not allowed here. Name labels that are sequences; the lengths of caption "
                    "and det are text.caption_tokens and text.det_tokens."
                )
            if not 1 <= length <= MAX_SEQUENCE_TOKENS or self.text.num_sentinels < length // 2 + 2:
                raise ValueError(
                    f"sequences.{name} is {length}; allowed: 1 to {MAX_SEQUENCE_TOKENS} tokens, with text.num_sentinels "
                    f"({self.text.num_sentinels}) at least half of that + 2."
                )
        return self

    @model_validator(mode="after")
    def _vectors_are_vectors(self) -> "TokenizersConfig":
        for name in self.vectors:
            if label(name).kind != "embeddings":
                raise ValueError(f"vectors.{name}: {name!r} has kind {label(name).kind}; allowed: labels of kind embeddings.")
        return self

    @model_validator(mode="after")
    def _visual_names_are_dense_labels(self) -> "TokenizersConfig":
        for name in self.visual:
            if label(name).reconstruction_loss is None:
                dense = ", ".join(known for known, entry in LABELS.items() if entry.reconstruction_loss)
                raise ValueError(f"visual.{name}: {name!r} is a sequence and has no VQ-VAE. Allowed: {dense}.")
        return self

    @model_validator(mode="after")
    def _vectors_have_mlps(self) -> "TokenizersConfig":
        for name, settings in self.visual.items():
            if (label(name).kind == "vector") != (settings.vector is not None):
                raise ValueError(
                    f"visual.{name} has kind {label(name).kind}: set `vector` (e.g. {{num_blocks: 2, width: 256}}) for global "
                    "vectors, which need it, and for no other kind."
                )
        return self

    @model_validator(mode="after")
    def _resolutions_are_of_images(self) -> "TokenizersConfig":
        for name, sides in self.resolutions.items():
            if name not in self.visual or not is_image(name):
                images = ", ".join(filter(is_image, self.visual))
                raise ValueError(f"resolutions.{name}: {name!r} is not an image that has a VQ-VAE. Allowed: {images}.")
            for side in sides:
                token_modality(f"{target_of(name).name}@{side}")  # raises for a side that the modality cannot have
        return self

    @model_validator(mode="after")
    def _diffusion_decodes_images(self) -> "TokenizersConfig":
        images = [name for name in self.visual if _is_diffusible(name)]
        if unknown := sorted(set(self.diffusion) - set(images)):
            raise ValueError(
                f"diffusion names {', '.join(unknown)}; a diffusion decoder needs an image of real numbers that has a VQ-VAE. "
                f"Allowed: {', '.join(images)}."
            )
        return self
