"""The VQ-VAE that the pipeline trains: one code for each patch of the token grid.

4M's tokenizers (arXiv 2312.06647 §A.3) are ViT-B; with `vit`, this one is a ViT of any size. For 8 × 8 tokens and
minutes on a CPU, convolutions at two scales (the token grid and twice the grid) learn more per second. Codebook,
straight-through gradient and commitment loss (VQ-VAE, arXiv 1711.00937 §3.2) are those of 4M.
"""

# B batch, C channels, H W pixels, h w token grid, D latent width

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.tokenizers.networks.codebook import CosineCodebook, Quantized
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vit import TrunkConfig, ViTDecoder, ViTEncoder


class ResidualBlock(nn.Module):
    """x + conv1×1(SiLU(conv3×3(x))); the last layer starts at zero, so no normalization is needed."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the same shape."""
        return x_BCHW + self.pointwise(F.silu(self.spatial(x_BCHW)))


class Position(nn.Module):
    """Adds a learned vector for each cell of the token grid, so that codes need not encode the position.

    4M's ViTs have fixed sin-cos embeddings. On another grid than that of training the vectors are resized (bicubic), as
    in 4M.
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        self.embedding_1Chw = nn.Parameter(torch.zeros(1, width, *grid))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return the same shape."""
        position_1Chw: Tensor = self.embedding_1Chw
        if x_BChw.shape[2:] != position_1Chw.shape[2:]:
            position_1Chw = F.interpolate(position_1Chw, size=x_BChw.shape[2:], mode="bicubic", align_corners=False)
        return x_BChw + position_1Chw


@dataclass(frozen=True)
class VQVAEShape:
    """Shapes of a VQ-VAE's inputs, tokens and outputs.

    Attributes:
        input_channels: channels of the inputs.
        output_channels: channels of the reconstructions.
        patch: pixels per side of a token; 1: feature maps on the grid itself; 0: all tokens together stand for one
            vector.
        grid: rows and columns of tokens at the size of training.

    Raises:
        ValueError: `patch` is odd and not 1.
    """

    input_channels: int
    output_channels: int
    patch: int
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        if self.patch > 1 and self.patch % 2:
            raise ValueError(
                f"A token covers {self.patch} × {self.patch} pixels; allowed: 1 or an even number. "
                "Change tokenizer_training.grid."
            )

    @property
    def is_vector(self) -> bool:
        """Whether all tokens stand for one vector together."""
        return self.patch == 0

    def input_size(self, grid: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return height and width of inputs that become `grid` tokens; by default the grid of training."""
        rows, columns = grid or self.grid
        return (rows * self.patch, columns * self.patch) if self.patch else (1, 1)

    @classmethod
    def of(cls, inputs_BCHW: Tensor, grid: tuple[int, int], is_vector: bool = False) -> "VQVAEShape":
        """Return the shape for inputs and outputs (B, C, H, W); raises ValueError if `grid` does not fit."""
        channels, height, width = inputs_BCHW.shape[1:]
        if is_vector:
            return cls(channels, channels, 0, grid)
        patch = height // grid[0]
        if (patch * grid[0], patch * grid[1]) != (height, width) or patch == 0:
            raise ValueError(
                f"{height} × {width} values cannot be cut into {grid[0]} × {grid[1]} square tokens. "
                "Change tokenizer_training.grid."
            )
        return cls(channels, channels, patch, grid)


class VQVAE(nn.Module):
    """Encoder (B, C, H, W) → latents (B, h, w, D), cosine codebook, decoder back to (B, C', H, W)."""

    def __init__(self, shape: VQVAEShape, config: VisualTokenizerConfig):
        super().__init__()
        self.shape = shape
        self.encoder = _encoder(shape, config) if config.vit is None else _vit_encoder(shape, config, config.vit)
        self.codebook = CosineCodebook(config.codebook_size, config.latent_width, config.codebook_decay, replacement="distant")
        self.decoder = _decoder(shape, config) if config.vit is None else _vit_decoder(shape, config, config.vit)
        if config.vit is None:
            _keep_variance(self)

    def encode(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the latents (B, h, w, D) before quantization, of unit length as codes are.

        4M does not normalize them. Here the decoder has trained on plain latents when codes replace them, and a jump in
        scale would undo part of that training.
        """
        latents_BDhw = self.encoder(inputs_BCHW.contiguous(memory_format=torch.channels_last))
        return F.normalize(latents_BDhw.permute(0, 2, 3, 1), dim=-1)

    def decode(self, latents_BhwD: Tensor) -> Tensor:
        """Return the reconstruction (B, C', H, W) of codes or latents."""
        return self.decoder(channels_first(latents_BhwD))

    def forward(self, inputs_BCHW: Tensor) -> tuple[Tensor, Quantized]:
        """Return the reconstruction through the codebook and the codebook's choice."""
        quantized = self.codebook(self.encode(inputs_BCHW))
        return self.decode(quantized.straight_through), quantized

    @torch.inference_mode()
    def tokens(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the token ids (B, h, w) int64."""
        latents_BhwD = self.encode(inputs_BCHW)
        return self.codebook.match(latents_BhwD.flatten(0, 2)).view(latents_BhwD.shape[:3])

    @torch.inference_mode()
    def reconstruct(self, tokens_Bhw: Tensor) -> Tensor:
        """Return the reconstruction (B, C', H, W) of token ids (B, h, w)."""
        return self.decode(self.codebook.codes(tokens_Bhw))


def channels_first(latents_BhwD: Tensor) -> Tensor:
    """Return the decoder's input (B, D, h, w) of codes or latents of unit length: channels have unit variance."""
    return latents_BhwD.permute(0, 3, 1, 2) * latents_BhwD.shape[-1] ** 0.5


def _encoder(shape: VQVAEShape, config: VisualTokenizerConfig) -> nn.Sequential:
    """Pixels → twice the grid (3 × 3 convolutions) → grid (only 1 × 1, so tokens depend on little beyond their patch)."""
    width, fine = config.width, config.fine_width
    if shape.patch == 1:
        stem: list[nn.Module] = [nn.Conv2d(shape.input_channels, width, 1), *_blocks(width, config.encoder_blocks)]
    else:
        pixels = shape.patch // 2
        stem = [nn.PixelUnshuffle(pixels), nn.Conv2d(shape.input_channels * pixels**2, fine, 1)]
        stem += [*_blocks(fine, config.encoder_blocks), nn.PixelUnshuffle(2), nn.Conv2d(4 * fine, width, 1)]
    end = [nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, config.latent_width, 1)]
    return nn.Sequential(*stem, Position(width, shape.grid), *end)


def _decoder(shape: VQVAEShape, config: VisualTokenizerConfig) -> nn.Sequential:
    """Grid (3 × 3 convolutions combine neighboring tokens) → twice the grid → pixels."""
    width, fine = config.width, config.fine_width
    trunk: list[nn.Module] = [nn.Conv2d(config.latent_width, width, 3, padding=1), Position(width, shape.grid)]
    trunk += [*_blocks(width, config.decoder_blocks), nn.SiLU()]
    if shape.patch == 1:
        return nn.Sequential(*trunk, nn.Conv2d(width, shape.output_channels, 1))
    pixels = shape.patch // 2
    head = [nn.Conv2d(width, 4 * fine, 1), nn.PixelShuffle(2), *_blocks(fine, config.decoder_blocks), nn.SiLU()]
    return nn.Sequential(*trunk, *head, nn.Conv2d(fine, shape.output_channels * pixels**2, 1), nn.PixelShuffle(pixels))


def _vit_encoder(shape: VQVAEShape, config: VisualTokenizerConfig, vit: TrunkConfig) -> nn.Sequential:
    """Patches through a ViT, then 1 × 1 to the latents."""
    trunk = ViTEncoder(shape.input_channels, shape.patch, shape.grid, vit)
    return nn.Sequential(trunk, nn.Conv2d(vit.dim, config.latent_width, 1))


def _vit_decoder(shape: VQVAEShape, config: VisualTokenizerConfig, vit: TrunkConfig) -> nn.Sequential:
    """1 × 1 from the latents, then a ViT and a linear layer to the pixels."""
    trunk = ViTDecoder(shape.output_channels, shape.patch, shape.grid, vit)
    return nn.Sequential(nn.Conv2d(config.latent_width, vit.dim, 1), trunk)


def _keep_variance(model: nn.Module) -> None:
    """Initialize convolutions with unit gain and residual branches with zero.

    With torch's default initialization the signal vanishes over ten layers.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.pointwise.weight)


def _blocks(width: int, number: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(number)]
