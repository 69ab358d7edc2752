"""Codebooks learned by gradient, one for each slice of the latent: 4M-21's quantizer of global vectors and poses.

Memcodes of NWT (arXiv 2106.04283 §3.2): a slice of the latent is a query, each code has a key and a value, and the
value of the best key is the output. In training the choice is a hard Gumbel-softmax sample (arXiv 1611.01144) at
temperature 1, with the gradient of the softmax. There is no commitment loss, no moving average and no dead code.
"""

# B batch, D latent width, N codebooks, d = D / N, K codes each, h w token grid, T = h · w

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.tokenizers.networks.codebook import Quantized


class Memcodes(nn.Module):
    """N codebooks of K codes of width D / N: N tokens for each cell of the grid.

    Raises:
        ValueError: N does not divide D.
    """

    def __init__(self, num_codes: int, width: int, num_codebooks: int):
        super().__init__()
        if width % num_codebooks:
            raise ValueError(f"A latent of width {width} cannot be cut into {num_codebooks} equal slices. Change latent_width.")
        slice_width = width // num_codebooks
        self.codes_NKd = nn.Parameter(torch.randn(num_codebooks, num_codes, slice_width))
        bound = (3 / slice_width) ** 0.5  # unit gain
        self.to_keys_Ndd = nn.Parameter(torch.empty(num_codebooks, slice_width, slice_width).uniform_(-bound, bound))
        self.to_values_Ndd = nn.Parameter(torch.empty(num_codebooks, slice_width, slice_width).uniform_(-bound, bound))

    def forward(self, x_BDhw: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Choose a code for each slice of the latents: the best one, or a sample drawn with `generator` (training).

        Returns:
            `tokens` (B, N, h, w), or (B, h, w) for a single codebook; `codes` (B, D, h, w).
        """
        num_cells = x_BDhw.shape[2] * x_BDhw.shape[3]
        return self.chosen(x_BDhw, None if generator is None else self.noise(len(x_BDhw), num_cells, generator))

    def noise(self, batch_size: int, num_cells: int, generator: torch.Generator) -> Tensor:
        """Draw the Gumbel noise (B, N, T, K) of a training pass."""
        num_codebooks, num_codes, _ = self.codes_NKd.shape
        # the negative logarithm of an exponential variable has a Gumbel distribution
        return -torch.empty(batch_size, num_codebooks, num_cells, num_codes).exponential_(generator=generator).log()

    def chosen(self, x_BDhw: Tensor, noise_BNTK: Tensor | None = None) -> Quantized:
        """Return what `forward` returns, for noise (B, N, T, K) that was drawn before; None takes the best code."""
        num_codebooks, num_codes, slice_width = self.codes_NKd.shape
        queries_BNTd = x_BDhw.flatten(2).unflatten(1, (num_codebooks, slice_width)).transpose(2, 3) * slice_width**-0.5
        logits_BNTK = queries_BNTd @ (self.codes_NKd @ self.to_keys_Ndd).transpose(1, 2)
        if noise_BNTK is not None:
            logits_BNTK = logits_BNTK + noise_BNTK.to(logits_BNTK)
        tokens_BNT = logits_BNTK.argmax(-1)
        shares_BNTK = logits_BNTK.softmax(-1)
        # straight-through: a hard choice forward, the gradient of the softmax backward
        chosen_BNTK = F.one_hot(tokens_BNT, num_codes).to(shares_BNTK.dtype) + shares_BNTK - shares_BNTK.detach()
        mixed = self._grid(chosen_BNTK @ (self.codes_NKd @ self.to_values_Ndd), x_BDhw.shape[2:])
        tokens = tokens_BNT.unflatten(2, x_BDhw.shape[2:])
        tokens = tokens.squeeze(1) if num_codebooks == 1 else tokens
        return Quantized(tokens, self.codes(tokens), mixed, x_BDhw.new_zeros(()))

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the values (B, D, h, w) of ids (B, N, h, w), or (B, h, w) for a single codebook."""
        num_codebooks = len(self.codes_NKd)
        tokens_BNT = (tokens[:, None] if num_codebooks == 1 and tokens.ndim == 3 else tokens).flatten(2)
        if tokens_BNT.shape[1] != num_codebooks:
            raise ValueError(f"Got {tokens_BNT.shape[1]} tokens for each cell; expected {num_codebooks}, one of each codebook.")
        values_NKd = self.codes_NKd @ self.to_values_Ndd
        rows_NBTd = [F.embedding(tokens_BNT[:, n], values_NKd[n]) for n in range(num_codebooks)]
        return self._grid(torch.stack(rows_NBTd, dim=1), tokens.shape[-2:])

    @staticmethod
    def _grid(x_BNTd: Tensor, grid: torch.Size) -> Tensor:
        return x_BNTd.transpose(2, 3).flatten(1, 2).unflatten(2, grid)
