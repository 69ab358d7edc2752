"""Settings of the networks that turn one dense label into tokens and back: sizes and training.

The defaults are those of the embedded run: 64 × 64 pixels, 8 × 8 tokens, about a minute on two CPU cores for all of
them.
"""

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.tokenizers.networks.diffusion import NoiseConfig
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.training.optimizers import OptimizerConfig


class VisualTokenizerConfig(Config):
    """One VQ-VAE: its codebook, its size and its training.

    4M's tokenizers are ViT-B with 4,096 to 16,384 codes of width 32, trained for 15 to 50 epochs (arXiv 2312.06647
    §A.3).
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
        "each token) are learned by gradient from the first step; the settings of averaged codes below have no effect",
    )
    unquantized_steps: int = Field(40, ge=0, description="steps as a plain autoencoder, before k-means places the codes")
    steps: int = Field(
        240, ge=1, description="steps up to the end of training through the codebook, including `unquantized_steps`"
    )
    decoder_steps: int = Field(60, ge=0, description="further steps of the decoder alone, on the final codes")
    batch_size: int = Field(24, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, weight_decay=0.0, muon_learning_rate=0.03)
    warmup_share: float = Field(
        0.05, ge=0, le=0.5, description="share of the steps in which the learning rate rises; then cosine to 0"
    )
    gradient_clip: float = Field(1.0, gt=0)
    commitment_weight: float = Field(0.25, ge=0, le=10, description="4M: 1")
    codebook_decay: float = Field(
        0.95, gt=0, lt=1, description="of the moving averages; 4M: 0.99, too slow for a few hundred steps"
    )
    dead_code_divisor: float = Field(
        32.0, gt=0, description="a code is dead when its average count is below (tokens in a batch / codes) / this, as in 4M"
    )
    checkpoint_every: int | None = Field(None, ge=1, description="steps; a checkpoint is saved every minute as well")

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> "VisualTokenizerConfig":
        if self.vector is None and self.unquantized_steps >= self.steps:
            raise ValueError(f"unquantized_steps is {self.unquantized_steps}; it must be less than steps ({self.steps}).")
        return self


class DiffusionDecoderConfig(Config):
    """A diffusion decoder of a VQ-VAE's codes, besides its own; the defaults suit 64 × 64 pixels and two CPU cores.

    4M's are `UNetConfig()`, trained together with the encoder for 20 to 50 epochs. Here the tokens exist first, so that
    both decoders are compared on the same tokens.
    """

    unet: UNetConfig = UNetConfig(width=64, multipliers=(1, 2, 2), blocks_per_level=1, attention_at=(4,), num_groups=8)
    noise: NoiseConfig = NoiseConfig()
    num_decoding_steps: int = Field(25, ge=1, description="DDIM steps")
    steps: int = Field(600, ge=1)
    batch_size: int = Field(16, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=1e-3, betas=(0.9, 0.99), weight_decay=0.05)
    warmup_share: float = Field(
        0.05, ge=0, le=0.5, description="share of the steps in which the learning rate rises; then cosine to 0"
    )
    gradient_clip: float = Field(1.0, gt=0)
    average_decay: float = Field(
        0.995, gt=0, lt=1, description="of the averaged weights that are kept; 4M: 0.9999, in far longer runs"
    )
    checkpoint_every: int | None = Field(None, ge=1, description="steps; a checkpoint is saved every minute as well")
    num_measured: int = Field(96, ge=1, description="samples decoded both ways for the report")

    @model_validator(mode="after")
    def _steps_exist(self) -> "DiffusionDecoderConfig":
        if self.num_decoding_steps > self.noise.num_steps:
            raise ValueError(
                f"num_decoding_steps is {self.num_decoding_steps}; allowed: up to noise.num_steps, {self.noise.num_steps}."
            )
        if self.noise.predicts != "clean":
            raise ValueError(
                f"noise.predicts is {self.noise.predicts!r}; allowed: 'clean', which decoders are trained to predict."
            )
        return self
