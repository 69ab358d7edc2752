"""The VQ-VAE of global vectors: an MLP on both sides, and several tokens that together stand for one vector.

4M-21 (arXiv 2406.09406 §3) tokenizes the class tokens of DINOv2 and ImageBind this way: 16 tokens with 8,192 ids each,
MLPs of 6 blocks of width 1,024, memcodes, and the loss 1 − cosine. The latent is cut into as many slices as there are
tokens, each with a separate codebook. A token's position therefore tells which slice it encodes, not a place in an
image.
"""

# B batch, C channels, h w "grid" of the tokens (4 × 4), N = h · w, D width of the latent, d = D / N

import torch
from torch import Tensor, nn

from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.memcodes import Memcodes
from fourfold.tokenizers.networks.vector_mlp import VectorMlp
from fourfold.tokenizers.networks.vqvae import VQVAEShape


class VectorVQVAE(nn.Module):
    """Vectors (B, C, 1, 1) → tokens (B, h, w) → vectors; `config.latent_width` is the width d of one slice.

    Raises:
        ValueError: the settings have no section `vector`.
    """

    def __init__(self, shape: VQVAEShape, config: VisualTokenizerConfig):
        super().__init__()
        if config.vector is None:
            raise ValueError("A tokenizer of global vectors needs the section `vector`, e.g. {num_blocks: 2, width: 256}.")
        self.shape = shape
        num_tokens = shape.grid[0] * shape.grid[1]
        width = num_tokens * config.latent_width
        self.encoder = VectorMlp(shape.input_channels, width, config.vector)
        self.codebook = Memcodes(config.codebook_size, width, num_tokens)
        self.decoder = VectorMlp(width, shape.output_channels, config.vector)

    def forward(self, inputs_BC11: Tensor, noise_BNTK: Tensor | None = None, decoder_alone: bool = False) -> Tensor:
        """Return the reconstruction (B, C, 1, 1) through the codebooks.

        Args:
            inputs_BC11: standardized vectors.
            noise_BNTK: noise of training (`Memcodes.noise`); None takes the best codes.
            decoder_alone: compute no gradient of the encoder and the codebooks.
        """
        with torch.set_grad_enabled(not decoder_alone and torch.is_grad_enabled()):
            quantized = self.codebook.chosen(self.encoder(inputs_BC11), noise_BNTK)
        return self.decoder(quantized.codes if decoder_alone else quantized.straight_through)

    @torch.inference_mode()
    def tokens(self, inputs_BC11: Tensor) -> Tensor:
        """Return the token ids (B, h, w) int64."""
        return self.codebook(self.encoder(inputs_BC11)).tokens.view(-1, *self.shape.grid)

    @torch.inference_mode()
    def reconstruct(self, tokens_Bhw: Tensor) -> Tensor:
        """Return the reconstruction (B, C, 1, 1) of token ids (B, h, w)."""
        return self.decoder(self.codebook.codes(tokens_Bhw.flatten(1)[:, :, None, None]))
