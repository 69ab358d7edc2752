"""Settings of the tokenizers; the defaults are the embedded default: 64 × 64 pixels, 8 × 8 tokens, a minute on two cores."""

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.crops import CropConfig
from fourfold.modalities import LABELS, label, target_of, token_modality
from fourfold.scenes.world import CLASS_NAMES
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig, VisualTokenizerConfig
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig


def is_image(name: str) -> bool:
    """Tell whether a label is dense in pixels: neither features nor a vector."""
    return label(name).reconstruction_loss is not None and label(name).kind not in ("features", "vector")


def _is_diffusible(name: str) -> bool:
    """Tell whether a label is an image of real numbers: neither classes nor features."""
    return is_image(name) and label(name).reconstruction_loss in ("mse", "smooth_l1")


def _default_visual() -> dict[str, VisualTokenizerConfig]:
    """Return what was measured to fit a minute on two cores; colors need the most, features lie on the grid already."""
    return {
        "rgb": VisualTokenizerConfig(codebook_size=1024, steps=360, decoder_steps=90),
        "depth": VisualTokenizerConfig(steps=240, decoder_steps=60),
        "normal": VisualTokenizerConfig(steps=240, decoder_steps=60),
        "semseg": VisualTokenizerConfig(steps=300, decoder_steps=70),
        "clip": VisualTokenizerConfig(codebook_size=512, steps=200, decoder_steps=50),
    }


class TokenizersConfig(Config):
    """All tokenizers of a run and how its shards are turned into tokens."""

    grid: tuple[int, int] = Field((8, 8), description="tokens of an image, rows and columns; 4M: 14 × 14")
    num_classes: int = Field(len(CLASS_NAMES), ge=2, le=256, description="class ids of semantic segmentation")
    trained_side: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="pixels per side at which the VQ-VAEs of images are trained; None: as stored. Fewer: positions are resized "
        "for the images themselves (4M trains at 224 and uses 448 too)",
    )
    resolutions: dict[str, tuple[int, ...]] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="label → sides in pixels, below the stored one, of further modalities: {rgb: [32]} gives `tok_rgb@32`, and "
        "pixels `rgb@32`",
    )
    visual: dict[str, VisualTokenizerConfig] = Field(default_factory=_default_visual)
    diffusion: dict[str, DiffusionDecoderConfig] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="second decoders, by label: rgb, depth, normal; none by default",
    )
    text: TextTokenizerConfig = TextTokenizerConfig()
    sequences: dict[str, int] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="labels beside captions and boxes that are written in the same vocabulary → longest, without EOS",
    )
    vectors: dict[str, tuple[int, int]] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="labels that the model reads as they are, e.g. t5_caption → longest, width",
    )
    crops: CropConfig = CropConfig()
    max_training_samples: int = Field(8000, ge=1, description="held in memory, one modality at a time")
    batch_size: int = Field(100, ge=1, description="images encoded or decoded at once")

    @model_validator(mode="after")
    def _sequences_can_be_masked(self) -> "TokenizersConfig":
        for name, length in self.sequences.items():
            if target_of(name).kind != "sequence" or name in ("caption", "det"):
                raise ValueError(f"`sequences` names {name!r}; it holds labels that are sequences, beside caption and det.")
            if not 1 <= length <= 1024 or self.text.num_sentinels < length // 2 + 2:
                raise ValueError(
                    f"sequences.{name} is {length}: 1 to 1024 tokens, and num_sentinels ({self.text.num_sentinels}) at least "
                    f"half of that + 2."
                )
        return self

    @model_validator(mode="after")
    def _vectors_are_vectors(self) -> "TokenizersConfig":
        for name in self.vectors:
            if label(name).kind != "embeddings":
                raise ValueError(f"`vectors` names {name!r}, which is {label(name).kind}; it holds labels of kind embeddings.")
        return self

    @model_validator(mode="after")
    def _visual_names_are_dense_labels(self) -> "TokenizersConfig":
        for name in self.visual:
            if label(name).reconstruction_loss is None:
                dense = ", ".join(known for known, entry in LABELS.items() if entry.reconstruction_loss)
                raise ValueError(f"{name!r} is a sequence and has no VQ-VAE. Those of `visual` may be: {dense}.")
        return self

    @model_validator(mode="after")
    def _vectors_have_mlps(self) -> "TokenizersConfig":
        for name, settings in self.visual.items():
            if (label(name).kind == "vector") != (settings.vector is not None):
                raise ValueError(
                    f"visual.{name} is {label(name).kind}: `vector` (e.g. {{num_blocks: 2, width: 256}}) is for global "
                    "vectors, which need it, and for nothing else."
                )
        return self

    @model_validator(mode="after")
    def _resolutions_are_of_images(self) -> "TokenizersConfig":
        for name, sides in self.resolutions.items():
            if name not in self.visual or not is_image(name):
                images = ", ".join(filter(is_image, self.visual))
                raise ValueError(f"`resolutions` names {name!r}; images that have a VQ-VAE have a resolution. Here: {images}.")
            for side in sides:
                token_modality(f"{target_of(name).name}@{side}")  # raises for a side that the modality cannot have
        return self

    def grid_of(self, name: str) -> tuple[int, int]:
        """Return rows and columns of the tokens of a dense label at its stored size: those of its kind, or `grid`."""
        if label(name).kind != "vector":
            return self.grid
        grid = target_of(name).released_grid
        assert grid is not None
        return grid

    @model_validator(mode="after")
    def _diffusion_decodes_images(self) -> "TokenizersConfig":
        images = [name for name in self.visual if _is_diffusible(name)]
        if unknown := sorted(set(self.diffusion) - set(images)):
            raise ValueError(
                f"No diffusion decoder for {', '.join(unknown)}: it decodes images of real numbers that have a VQ-VAE. "
                f"Here: {', '.join(images)}."
            )
        return self
