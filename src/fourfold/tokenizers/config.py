"""Settings of the tokenizers; the defaults are the embedded default: 64 × 64 pixels, 8 × 8 tokens, a minute on two cores."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from fourfold.configuration import Config
from fourfold.modalities import LABELS, label, target_of, token_modality
from fourfold.scenes.world import CLASS_NAMES, OBJECT_CLASSES
from fourfold.tokenizers.coco import COCO_CLASSES
from fourfold.tokenizers.diffusion import NoiseConfig
from fourfold.tokenizers.unet import UNetConfig
from fourfold.tokenizers.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.vit import TrunkConfig
from fourfold.training.optimizers import OptimizerConfig


class VisualTokenizerConfig(Config):
    """One VQ-VAE: its codebook, its size and its training.

    4M's own are ViT-B with 4,096–16,384 codes of width 32, trained for 15–50 epochs (4M §A.3).
    """

    codebook_size: int = Field(256, ge=2, le=32767, description="codes; token ids are int16")
    latent_width: int = Field(16, ge=2, le=256)
    width: int = Field(128, ge=8, le=1024, description="channels at the token grid")
    fine_width: int = Field(64, ge=8, le=512, description="channels at twice the token grid")
    encoder_blocks: int = Field(1, ge=0, le=12, description="residual blocks of the encoder, at each of its two scales")
    decoder_blocks: int = Field(1, ge=0, le=12, description="residual blocks of the decoder, at each of its two scales")
    vit: TrunkConfig | None = Field(
        None, exclude_if=lambda value: value is None, description="transformers on both sides instead of convolutions, as in 4M"
    )
    vector: VectorMlpConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="for global vectors, and only those: MLPs on both sides. Codes (`latent_width` wide, `codebook_size` for "
        "each token) are learned by gradient from the first step, so what is said of averaged codes below means nothing",
    )
    unquantized_steps: int = Field(40, ge=0, description="as a plain autoencoder, before k-means places the codes")
    steps: int = Field(240, ge=1, description="up to the end of training through the codebook; includes the above")
    decoder_steps: int = Field(60, ge=0, description="more steps for the decoder alone, on the final, frozen codes")
    batch_size: int = Field(24, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, weight_decay=0.0, muon_learning_rate=0.03)
    warmup_share: float = Field(0.05, ge=0, le=0.5, description="share of the steps in which the rate rises; then cosine to 0")
    gradient_clip: float = Field(1.0, gt=0)
    commitment_weight: float = Field(0.25, ge=0, le=10, description="4M: 1")
    codebook_decay: float = Field(0.95, gt=0, lt=1, description="4M: 0.99; a run of a few hundred steps needs faster codes")
    dead_code_divisor: float = Field(
        32.0, gt=0, description="a code is dead when its average count is below (tokens in a batch / codes) / this, as in 4M"
    )
    checkpoint_every: int | None = Field(None, ge=1, description="steps; by default a killed tokenizer starts again")

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> "VisualTokenizerConfig":
        if self.vector is None and self.unquantized_steps >= self.steps:
            raise ValueError(f"unquantized_steps is {self.unquantized_steps}; it must be less than steps ({self.steps}).")
        return self


class DiffusionDecoderConfig(Config):
    """A second decoder of a VQ-VAE's codes, beside its own; the defaults suit 64 × 64 pixels and a few minutes on two cores.

    4M's own are `UNetConfig()`, trained together with the encoder for 20–50 epochs; here tokens are there first, so that both
    decoders are judged on the same ones.
    """

    unet: UNetConfig = UNetConfig(width=64, multipliers=(1, 2, 2), blocks_per_level=1, attention_at=(4,), num_groups=8)
    noise: NoiseConfig = NoiseConfig()
    num_decoding_steps: int = Field(25, ge=1, description="of DDIM")
    steps: int = Field(600, ge=1)
    batch_size: int = Field(16, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=1e-3, betas=(0.9, 0.99), weight_decay=0.05)
    warmup_share: float = Field(0.05, ge=0, le=0.5, description="share of the steps in which the rate rises; then cosine to 0")
    gradient_clip: float = Field(1.0, gt=0)
    average_decay: float = Field(0.995, gt=0, lt=1, description="of the weights that are kept; 4M: 0.9999, in far longer runs")
    checkpoint_every: int | None = Field(None, ge=1, description="steps; by default a killed decoder starts again")
    num_measured: int = Field(96, ge=1, description="samples decoded both ways for the report")

    @model_validator(mode="after")
    def _steps_exist(self) -> "DiffusionDecoderConfig":
        if self.num_decoding_steps > self.noise.num_steps:
            raise ValueError(f"num_decoding_steps is {self.num_decoding_steps}; the noise has {self.noise.num_steps} steps.")
        if self.noise.predicts != "clean":
            raise ValueError(f"noise.predicts is {self.noise.predicts!r}; decoders are trained to predict the clean image.")
        return self


class TextTokenizerConfig(Config):
    """WordPiece for captions, and words for boxes: one vocabulary (4M §A.2)."""

    vocabulary_size: int = Field(1024, ge=64, le=32767, description="at most; a small corpus may fill less; 4M: 30,000")
    num_sentinels: int = Field(32, ge=2, le=1000, description="4M: 200; captions of n tokens can have n / 2 + 2 masked runs")
    coordinate_bins: int = Field(64, ge=2, le=4096, description="per box side; 4M: 1,000")
    object_classes: tuple[str, ...] = Field(OBJECT_CLASSES, min_length=1, description="names, or `coco`: its 80 classes")
    caption_tokens: int = Field(48, ge=1, le=1024, description="longest caption, without EOS")
    det_tokens: int = Field(30, ge=5, le=1024, description="longest box sequence, 5 tokens a box, without EOS")
    max_captions: int = Field(100_000, ge=1, description="captions that the vocabulary is learned from")
    extra_texts: tuple[str, ...] = Field(
        (
            "what colour is the shape of the object? which material or texture does it have, plain or striped?",
            "how many objects are there? how many cubes, spheres, cylinders and cones? is there a cube on the left?",
            "is the sphere bigger than, smaller than, in front of, behind, left of or right of the cone? yes, no, none.",
            "zero one two three four five six seven eight nine ten 0 1 2 3 4 5 6 7 8 9",
        ),
        description="texts beside the captions, so that words of later tasks (questions) are whole words",
    )

    @field_validator("object_classes", mode="before")
    @classmethod
    def _classes_by_name(cls, value: Any) -> Any:
        return COCO_CLASSES if value == "coco" else value

    @model_validator(mode="after")
    def _enough_sentinels(self) -> "TextTokenizerConfig":
        longest = max(self.caption_tokens, self.det_tokens)
        if self.num_sentinels < longest // 2 + 2:
            raise ValueError(
                f"num_sentinels is {self.num_sentinels}; sequences of {longest} tokens need at least {longest // 2 + 2}."
            )
        if len(set(self.object_classes)) != len(self.object_classes):
            raise ValueError(f"object_classes has a name twice: {', '.join(self.object_classes)}.")
        return self


class CropConfig(Config):
    """How a sample is seen when it is pre-tokenized: crop 0 is the whole image; others are 4M's random resized crops."""

    num_crops: int = Field(1, ge=1, le=64)
    min_scale: float = Field(0.8, gt=0, le=1, description="smallest share of the area")
    max_ratio: float = Field(4 / 3, ge=1, le=4, description="widest width / height; the narrowest is its inverse")
    flip_probability: float = Field(0.0, ge=0, le=1, description="4M: 0.5; mirrored images contradict 'left of' in a caption")


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
