"""The VQ-VAE of 4M itself: a ViT on each side of one or several codebooks (arXiv 2312.06647 §A.3; 4m-facts §2).

`fourfold.tokenizers.vqvae` is the small convolutional one that trains in a minute; this one is what the released ones are.
"""

# B batch, C channels, H W pixels, h w token grid, D latent width, N codebooks in parallel

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.tokenizers.codebook import CosineCodebook, EuclideanCodebook, Quantized
from fourfold.tokenizers.vit import TrunkConfig, ViTDecoder, ViTEncoder


class ViTVQVAEConfig(Config):
    """What goes in and out, and the bottleneck between. The defaults are 4M's RGB tokenizer with a ViT decoder."""

    channels: int = Field(default=3, ge=1)  # of the input; of the class embedding when there are classes
    num_classes: int | None = Field(default=None, ge=2)  # segmentation: ids in, logits out
    image_size: tuple[int, int] = (224, 224)  # pixels, or places of a feature map times `patch_size`
    patch_size: int = Field(default=16, ge=1)
    feature_map: bool = False  # inputs are (B, C, h, w) already: 1 × 1 projections instead of patches
    encoder: TrunkConfig = TrunkConfig()
    decoder: TrunkConfig = TrunkConfig()
    output_blocks: bool = False
    latent_width: int = Field(default=32, ge=1)
    codebook: Literal["cosine", "euclidean"] = "cosine"
    codebook_size: int = Field(default=16384, ge=2)
    num_codebooks: int = Field(default=1, ge=1)  # tokens per place; all choose from one table
    codebook_decay: float = Field(default=0.99, ge=0, lt=1)
    dead_code_threshold: float = Field(default=0.0, ge=0)
    unit_latents: bool = False  # latents are normalised before the commitment loss
    commitment_weight: float = Field(default=1.0, ge=0)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


class Bottleneck(nn.Module):
    """Latents (B, D, h, w) through one codebook, or through several tokens of one codebook per place, and back."""

    def __init__(self, config: ViTVQVAEConfig):
        super().__init__()
        self.config = config
        kind = CosineCodebook if config.codebook == "cosine" else EuclideanCodebook
        width, parallel = config.latent_width, config.num_codebooks
        self.table = kind(config.codebook_size, width, config.codebook_decay, config.dead_code_threshold)
        self.split = nn.Linear(width, parallel * width) if parallel > 1 else None
        self.join = nn.Linear(parallel * width, width) if parallel > 1 else None

    def latents(self, x_BDhw: Tensor) -> Tensor:
        """Return what the codebook sees: (B, h, w, D), or (B, N, h, w, D) with several tokens a place."""
        x_BhwD = x_BDhw.permute(0, 2, 3, 1)
        if self.split is not None:
            x_BhwD = self.split(x_BhwD).unflatten(-1, (self.config.num_codebooks, -1)).movedim(3, 1)
        return F.normalize(x_BhwD, dim=-1) if self.config.unit_latents else x_BhwD

    def merged(self, codes: Tensor) -> Tensor:
        """Return (B, D, h, w) of codes as `latents` lays them out."""
        if self.join is not None:
            codes = self.join(codes.movedim(1, 3).flatten(3))
        return codes.permute(0, 3, 1, 2)

    def forward(self, x_BDhw: Tensor) -> Quantized:
        """Return what the codebook chose; `update` of the table is the trainer's business."""
        return self.table(self.latents(x_BDhw))


class ViTVQVAE(nn.Module):
    """Encoder (B, C, H, W) → latents, codebook, decoder back."""

    def __init__(self, config: ViTVQVAEConfig):
        super().__init__()
        self.config = config
        patch_size = 1 if config.feature_map else config.patch_size
        self.classes = nn.Embedding(config.num_classes, config.channels) if config.num_classes else None
        self.encoder = ViTEncoder(config.channels, patch_size, config.grid, config.encoder)
        self.to_latents = nn.Conv2d(config.encoder.dim, config.latent_width, 1)
        self.bottleneck = Bottleneck(config)
        self.from_latents = nn.Conv2d(config.latent_width, config.decoder.dim, 1)
        outputs = config.num_classes or config.channels
        self.decoder = ViTDecoder(outputs, patch_size, config.grid, config.decoder, config.output_blocks)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return (B, C, H, W): class ids (B, H, W) are embedded, everything else is as it came."""
        return inputs if self.classes is None else self.classes(inputs).permute(0, 3, 1, 2)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the latents (B, D, h, w) before quantisation."""
        return self.to_latents(self.encoder(self.prepare(inputs)))

    def tokens(self, inputs: Tensor) -> Tensor:
        """Return token ids (B, h, w), or (B, N, h, w) with several a place, int64."""
        return self.bottleneck(self.encode(inputs)).tokens

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction (B, C', H, W) of codes as the bottleneck lays them out."""
        return self.decoder(self.from_latents(self.bottleneck.merged(codes)))

    def reconstruct(self, tokens: Tensor) -> Tensor:
        """Return the reconstruction of token ids."""
        return self.decode(self.bottleneck.table.codes(tokens))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Quantized]:
        """Return the reconstruction through the codebook (straight-through) and what the codebook chose."""
        quantized = self.bottleneck(self.encode(inputs))
        return self.decode(quantized.straight_through), quantized

    def code_loss(self, quantized: Quantized) -> Tensor:
        """Return the weighted commitment loss of a training pass."""
        return self.config.commitment_weight * quantized.commitment

    @torch.no_grad()
    def update_codebook(self, inputs: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> int:
        """Move the codes towards the latents of a batch; return how many dead ones were replaced."""
        return self.bottleneck.table.update(self.bottleneck.latents(self.encode(inputs)), tokens, generator)
