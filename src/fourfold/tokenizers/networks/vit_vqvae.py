"""The VQ-VAE of the released tokenizers: a ViT or an MLP on each side of the codebooks (4M, arXiv 2312.06647 §A.3).

`vqvae.py` has the small convolutional VQ-VAE that trains in a minute. Released tokenizers with a diffusion decoder
share the encoder and the bottleneck of this module (`divae.py`).
"""

# B batch, C channels, H W pixels, h w token grid, D latent width, N tokens for each grid cell

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.tokenizers.networks.codebook import CosineCodebook, EuclideanCodebook, Quantized
from fourfold.tokenizers.networks.memcodes import Memcodes
from fourfold.tokenizers.networks.vector_mlp import VectorMlp, VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig, ViTDecoder, ViTEncoder


class VQConfig(Config):
    """Inputs, encoder and bottleneck; the defaults are 4M's RGB tokenizer."""

    channels: int = Field(default=3, ge=1)  # of the input, or of the class embedding if there are classes
    num_classes: int | None = Field(default=None, ge=2)  # segmentation: ids in, logits out
    imagenet_standardized: bool = False  # inputs have ImageNet's standardization; undo it, to [-1, 1]
    image_size: tuple[int, int] = (224, 224)  # pixels; for feature maps, their cells times `patch_size`
    encoder_image_size: tuple[int, int] | None = None  # of the position embeddings, if it differs
    decoder_image_size: tuple[int, int] | None = None
    patch_size: int = Field(default=16, ge=1)
    feature_map: bool = False  # inputs are (B, C, h, w) already: 1 × 1 projections instead of patches
    encoder: TrunkConfig | VectorMlpConfig = TrunkConfig()
    latent_width: int = Field(default=32, ge=1)
    codebook: Literal["cosine", "euclidean", "memcodes"] = "cosine"
    codebook_size: int = Field(default=16384, ge=2)
    num_codebooks: int = Field(default=1, ge=1)  # tokens for each cell; memcodes have a table for each, others share one
    codebook_decay: float = Field(default=0.99, ge=0, lt=1)
    dead_code_threshold: float = Field(default=0.0, ge=0)
    code_replacement: Literal["random", "split"] = "random"
    unit_latents: bool = False  # normalize latents before the commitment loss
    commitment_weight: float = Field(default=1.0, ge=0)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of an image of `image_size`."""
        return _grid(self.image_size, self.patch_size)


class ViTVQVAEConfig(VQConfig):
    """Adds a decoder that mirrors the encoder."""

    decoder: TrunkConfig | VectorMlpConfig = TrunkConfig()
    decoder_patch_size: int | None = Field(default=None, ge=1)  # `patch_size` by default
    output_blocks: bool = False  # two ConvNeXt blocks on the output

    @model_validator(mode="after")
    def _output_blocks_need_an_image(self) -> "ViTVQVAEConfig":
        if self.output_blocks and isinstance(self.decoder, VectorMlpConfig):
            raise ValueError("output_blocks is set with an MLP decoder; only ViT decoders have output blocks.")
        return self


class Bottleneck(nn.Module):
    """Latents (B, D, h, w) through a codebook and back; one token for each grid cell, or several of one codebook."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        kind = CosineCodebook if config.codebook == "cosine" else EuclideanCodebook
        width, parallel = config.latent_width, config.num_codebooks
        self.table = kind(
            config.codebook_size, width, config.codebook_decay, config.dead_code_threshold, config.code_replacement
        )
        self.split = nn.Linear(width, parallel * width) if parallel > 1 else None
        self.join = nn.Linear(parallel * width, width) if parallel > 1 else None

    def latents(self, x_BDhw: Tensor) -> Tensor:
        """Return the codebook's input: (B, h, w, D), or (B, N, h, w, D) with several tokens for each cell."""
        x_BhwD = x_BDhw.permute(0, 2, 3, 1)
        if self.split is not None:
            x_BhwD = self.split(x_BhwD).unflatten(-1, (self.config.num_codebooks, -1)).movedim(3, 1)
        return F.normalize(x_BhwD, dim=-1) if self.config.unit_latents else x_BhwD

    def merged(self, codes: Tensor) -> Tensor:
        """Return (B, D, h, w) of codes in the layout of `latents`."""
        if self.join is not None:
            codes = self.join(codes.movedim(1, 3).flatten(3))
        return codes.permute(0, 3, 1, 2)

    def forward(self, x_BDhw: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Return the codebook's choice, which is not random. Training calls `update` of the table separately."""
        return self.table(self.latents(x_BDhw))

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the stored codes of ids, in the layout of `latents`."""
        return self.table.codes(tokens)


class MemcodesBottleneck(Memcodes):
    """The interface of `Bottleneck` for codebooks that are learned by gradient."""

    def __init__(self, config: VQConfig):
        super().__init__(config.codebook_size, config.latent_width, config.num_codebooks)

    def merged(self, codes: Tensor) -> Tensor:
        """Return `codes` unchanged: they are (B, D, h, w)."""
        return codes


class VQEncoder(nn.Module):
    """Encoder, projection to latents and bottleneck: all that tokens need."""

    released_metadata: dict[str, str] | None = None  # of the released file that the tokenizer was loaded from

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        grid = _grid(config.encoder_image_size or config.image_size, config.patch_size)
        self.classes = nn.Embedding(config.num_classes, config.channels) if config.num_classes else None
        self.encoder: nn.Module
        if isinstance(config.encoder, VectorMlpConfig):
            self.encoder = VectorMlp(config.channels, config.encoder.dim, config.encoder)
        else:
            self.encoder = ViTEncoder(config.channels, 1 if config.feature_map else config.patch_size, grid, config.encoder)
        self.to_latents = nn.Conv2d(config.encoder.dim, config.latent_width, 1)
        self.bottleneck = MemcodesBottleneck(config) if config.codebook == "memcodes" else Bottleneck(config)

    def prepare(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Return (B, C, H, W): bytes as [-1, 1]; class ids (B, H, W) embedded; ImageNet's standardization undone."""
        inputs = torch.as_tensor(inputs, device=self.to_latents.weight.device)
        if self.classes is not None:
            return self.classes(inputs.long()).permute(0, 3, 1, 2)
        if inputs.dtype == torch.uint8:
            return inputs.to(self.to_latents.weight.dtype) / 127.5 - 1
        if self.config.imagenet_standardized:
            mean_C11, deviation_C11 = (inputs.new_tensor(row)[:, None, None] for row in (IMAGENET_MEAN, IMAGENET_STD))
            inputs = 2 * (inputs * deviation_C11 + mean_C11) - 1
        return inputs

    def id_grid(self, tokens: Tensor | np.ndarray) -> Tensor:
        """Return ids as int64 (B, h, w), or (B, N, h, w) with several for each cell; flat ones (B, L) are cut into rows.

        Raises:
            ValueError: their number is neither that of `config.grid` nor a square, or an id is not a code.
        """
        ids = torch.as_tensor(tokens, device=self.to_latents.weight.device).long()
        per_cell, last = self.config.num_codebooks, self.config.codebook_size - 1
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= last:
            raise ValueError(f"Token ids are from {int(ids.min())} to {int(ids.max())}; allowed: 0 to {last}.")
        if per_cell > 1 and ids.ndim == 2:  # of vectors
            return ids[:, :, None, None]
        if ids.ndim == (3 if per_cell > 1 else 2):
            length, side = ids.shape[-1], math.isqrt(ids.shape[-1])
            rows, columns = self.config.grid if math.prod(self.config.grid) == length else (side, side)
            if rows * columns != length:
                raise ValueError(
                    f"Got {length} tokens of an image; allowed: {math.prod(self.config.grid)} or a square. Give (B, h, w)."
                )
            return ids.unflatten(-1, (rows, columns))
        return ids

    def encode(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Return the latents (B, D, h, w) before quantization."""
        return self.to_latents(self.encoder(self.prepare(inputs)))

    def tokens(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Return token ids (B, h, w), or (B, N, h, w) with several for each cell, int64."""
        return self.bottleneck(self.encode(inputs)).tokens

    def vector_tokens(self, vectors_BC: Tensor) -> Tensor:
        """Return token ids (B, N) of global vectors (B, C), which are images of 1 × 1."""
        return self.tokens(vectors_BC[:, :, None, None]).flatten(1)

    def code_loss(self, quantized: Quantized) -> Tensor:
        """Return the weighted commitment loss, a scalar; that of memcodes is 0."""
        return self.config.commitment_weight * quantized.commitment

    @torch.no_grad()
    def update_codebook(self, inputs: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> int:
        """Move averaged codes towards the latents of a batch; return how many dead codes were replaced."""
        if isinstance(self.bottleneck, MemcodesBottleneck):
            return 0  # their codes are parameters of the optimizer
        return self.bottleneck.table.update(self.bottleneck.latents(self.encode(inputs)), tokens, generator)


class ViTVQVAE(VQEncoder):
    """Encoder (B, C, H, W) → latents, bottleneck, decoder back to (B, C', H, W)."""

    config: ViTVQVAEConfig

    def __init__(self, config: ViTVQVAEConfig):
        super().__init__(config)
        self.from_latents = nn.Conv2d(config.latent_width, config.decoder.dim, 1)
        outputs, patch_size = config.num_classes or config.channels, config.decoder_patch_size or config.patch_size
        self.decoder: nn.Module
        if isinstance(config.decoder, VectorMlpConfig):
            self.decoder = VectorMlp(config.decoder.dim, outputs, config.decoder)
        else:
            grid = _grid(config.decoder_image_size or config.image_size, patch_size)
            patch_size = 1 if config.feature_map else patch_size
            self.decoder = ViTDecoder(outputs, patch_size, grid, config.decoder, config.output_blocks)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction (B, C', H, W) of codes in the layout of the bottleneck."""
        return self.decoder(self.from_latents(self.bottleneck.merged(codes)))

    def reconstruct(self, tokens: Tensor | np.ndarray) -> Tensor:
        """Return the reconstruction (B, C', H, W) of token ids in any form that `id_grid` takes."""
        return self.decode(self.bottleneck.codes(self.id_grid(tokens)))

    def reconstruct_vectors(self, tokens_BN: Tensor) -> Tensor:
        """Return global vectors (B, C') of ids (B, N)."""
        single = self.config.num_codebooks == 1
        return self.reconstruct(tokens_BN[:, :, None] if single else tokens_BN[:, :, None, None]).flatten(1)

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Quantized]:
        """Return the reconstruction (B, C', H, W) with the straight-through gradient, and the codebook's choice.

        `generator` draws the Gumbel noise with which memcodes are trained; averaged codebooks do not use it.
        """
        quantized = self.bottleneck(self.encode(inputs), generator)
        return self.decode(quantized.straight_through), quantized


def _grid(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    return size[0] // patch_size, size[1] // patch_size
