"""Codebooks updated by moving averages instead of gradients, matched by cosine similarity (as in 4M) or by distance.

The cosine codebook is 4M's (arXiv 2312.06647 §A.3), after ViT-VQGAN (arXiv 2110.04627: cosine similarity) and
SoundStream (arXiv 2107.03312: replacement of dead codes); `tests/reference/codebook_ema.npz` holds numbers of the
reference implementation. The Euclidean codebook is that of VQ-VAE-2 (arXiv 1906.00446 §A).
"""

# T latents (all positions of all samples), K codes, D latent width

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

SMOOTHING = 1e-5  # of the Euclidean codebook's counts
# Between a copied code and its original, as in the reference: just enough that latents choose one of the two.
SPLIT_NOISE = 1e-10
Replacement = Literal["random", "distant", "split"]


@dataclass(frozen=True)
class Quantized:
    """Result of quantizing latents (..., D)."""

    tokens: Tensor  # (...) int64
    codes: Tensor  # (..., D), the stored codes; moving averages are not of unit length
    straight_through: Tensor  # (..., D), values of `codes`, gradient of the latents (VQ-VAE, arXiv 1711.00937 §3.2)
    commitment: Tensor  # (), mean squared distance of the latents to their codes


class Codebook(nn.Module):
    """K codes of width D; subclasses define how latents match codes and how codes are updated.

    A code whose averaged count falls below `dead_code_threshold` is replaced, depending on `replacement`:

    - `random`: by a random latent of the batch (4M);
    - `distant`: by a latent that is far from all codes, because most patches of an image look alike and need no more
      codes;
    - `split`: by a copy of a most used code, which splits its cell (Linde, Buzo & Gray 1980; an option of the
      reference).

    Under `torch.distributed`, each rank passes different latents to `update`, and all ranks end with the same codes:
    sums and counts are added up over the ranks, and replacements are drawn from the latents of all ranks, in the order
    of ranks. `initialize` and `settle` are not distributed: every rank passes the same latents, and the codes of the
    first rank are kept.
    """

    codes_KD: Tensor
    counts_K: Tensor

    def __init__(
        self,
        num_codes: int,
        width: int,
        decay: float = 0.99,
        dead_code_threshold: float = 0.0,
        replacement: Replacement = "random",
    ):
        super().__init__()
        self.decay = decay
        self.dead_code_threshold = dead_code_threshold
        self.replacement = replacement
        self.register_buffer("codes_KD", F.normalize(torch.ones(num_codes, width), dim=-1))
        self.register_buffer("counts_K", torch.zeros(num_codes))

    @abstractmethod
    def match(self, latents_TD: Tensor) -> Tensor:
        """Return the id (T,) int64 of the nearest code of each latent."""

    @abstractmethod
    def update(self, latents: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> int:
        """Move the codes towards the latents (..., D) that chose them, and replace dead codes.

        Returns:
            How many codes were replaced.
        """

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (..., D). The codes do not change; training calls `update` for that."""
        tokens = self.match(latents.detach().flatten(0, -2)).view(latents.shape[:-1])
        codes = self.codes(tokens)
        return Quantized(tokens, codes, latents + (codes - latents).detach(), F.mse_loss(latents, codes))

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the stored codes (..., D) of ids (...)."""
        return F.embedding(tokens, self.codes_KD)

    @torch.no_grad()
    def replace_dead(self, latents_TD: Tensor, generator: torch.Generator | None = None) -> int:
        """Replace codes below the threshold by normalized latents (T, D), in order of id. Counts stay, as in 4M.

        Returns:
            How many codes were replaced.

        Raises:
            ValueError: there are several ranks and no generator.
        """
        dead_K = self.counts_K < self.dead_code_threshold
        num_dead = int(dead_K.sum())
        if not num_dead:
            return 0
        if generator is None and _num_ranks() > 1:
            raise ValueError(
                "Several ranks replace dead codes without a generator. Pass one that has the same seed on each rank."
            )
        if self.replacement == "split":
            self.codes_KD[dead_K] = self._split(num_dead, generator)
        else:
            latents_TD = _gathered_from_ranks(latents_TD)
            self.codes_KD[dead_K] = latents_TD[self.pick(latents_TD, num_dead, generator)]
        return num_dead

    def _split(self, num_needed: int, generator: torch.Generator | None) -> Tensor:
        """Return normalized copies of the most used codes, the most used first."""
        copied_KD = self.codes_KD[self.counts_K.argsort(descending=True)[:num_needed]]
        noise_KD = torch.randn(copied_KD.shape, generator=generator).to(copied_KD)
        return F.normalize(copied_KD + SPLIT_NOISE * noise_KD, dim=-1)

    def pick(self, latents_TD: Tensor, num_needed: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents for dead codes, without repetition if there are enough; `distant`: in proportion to 1 − cosine.

        Returns:
            Indices (num_needed,) of latents, int64.
        """
        if num_needed > len(latents_TD):
            return torch.randint(len(latents_TD), (num_needed,), generator=generator)
        if self.replacement == "random":
            return torch.randperm(len(latents_TD), generator=generator)[:num_needed]
        weights_T = 1 - (latents_TD @ F.normalize(self.codes_KD, dim=-1).T).amax(-1)
        return torch.multinomial(weights_T.clamp(min=1e-6).cpu(), num_needed, generator=generator)

    def _sums(self, latents_TD: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each code the sum of its latents (K, D) and their number (K,)."""
        # A matrix product adds in a fixed order, unlike scatter-add on a GPU.
        chosen_TK = F.one_hot(tokens_T, len(self.codes_KD)).to(latents_TD.dtype)
        return chosen_TK.T @ latents_TD, chosen_TK.sum(0)

    def _sums_of_all_ranks(self, latents_TD: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same over the latents of all ranks."""
        sums_KD, hits_K = self._sums(latents_TD, tokens_T)
        if _num_ranks() > 1:
            distributed.all_reduce(sums_KD)
            distributed.all_reduce(hits_K)
        return sums_KD, hits_K


class CosineCodebook(Codebook):
    """Codes matched by cosine similarity in float32.

    `update` sets a used code to decay · code + (1 − decay) · normalize(mean of its normalized latents). An unused code
    drifts towards unit length.
    """

    def match(self, latents_TD: Tensor) -> Tensor:
        """Return the id (T,) int64 of the code nearest in angle to each latent."""
        return (latents_TD.float() @ F.normalize(self.codes_KD, dim=-1).T).argmax(
            -1
        )  # the latents' lengths do not change which code is nearest

    @torch.no_grad()
    def update(self, latents: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> int:
        """Move the codes towards the latents (..., D) that chose them, and replace dead codes.

        Returns:
            How many codes were replaced.
        """
        latents_TD = F.normalize(latents.detach().flatten(0, -2).float(), dim=-1)
        sums_KD, hits_K = self._sums_of_all_ranks(latents_TD, tokens.flatten())
        means_KD = F.normalize(sums_KD / hits_K.clamp(min=1)[:, None], dim=-1)
        goals_KD = torch.where(hits_K[:, None] > 0, means_KD, F.normalize(self.codes_KD, dim=-1))
        self.codes_KD.lerp_(goals_KD, 1 - self.decay)
        self.counts_K.lerp_(hits_K, 1 - self.decay)
        return self.replace_dead(latents_TD, generator)

    @torch.no_grad()
    def initialize(self, latents: Tensor, generator: torch.Generator | None = None, iterations: int = 10) -> None:
        """Place the codes by spherical k-means++ (Arthur & Vassilvitskii 2007) on latents (..., D).

        With random codes, as in the reference, most codes would stay unused for longer than a run of minutes lasts.
        """
        latents_TD = F.normalize(latents.detach().flatten(0, -2).float(), dim=-1)
        distances_T = torch.ones(len(latents_TD), device=latents_TD.device)
        for code_D in self.codes_KD:
            # on the CPU, where the generator is
            chosen = torch.multinomial(distances_T.clamp(min=1e-9).cpu(), 1, generator=generator)
            code_D.copy_(latents_TD[chosen[0]])
            distances_T = torch.minimum(distances_T, 1 - latents_TD @ code_D)
        self.settle(latents, generator, iterations)

    @torch.no_grad()
    def settle(self, latents: Tensor, generator: torch.Generator | None = None, iterations: int = 5) -> None:
        """Repeat: move each code to the mean direction of its latents (..., D), and codes without any to distant latents."""
        latents_TD = F.normalize(latents.detach().flatten(0, -2).float(), dim=-1)
        for _ in range(iterations):
            sums_KD, hits_K = self._sums(latents_TD, self.match(latents_TD))
            empty_K = hits_K == 0
            if empty_K.any():
                sums_KD[empty_K] = latents_TD[self.pick(latents_TD, int(empty_K.sum()), generator)]
            self.codes_KD.copy_(F.normalize(sums_KD, dim=-1))
        _take_from_first_rank(self.codes_KD)
        self.counts_K.fill_(self.dead_code_threshold * 2)  # no code is dead until the moving average falls


class EuclideanCodebook(Codebook):
    """Codes matched by distance in float32: the averaged sum of their latents over their averaged, smoothed count."""

    sums_KD: Tensor

    def __init__(self, *settings: Any, **named_settings: Any):
        super().__init__(*settings, **named_settings)
        self.register_buffer("sums_KD", self.codes_KD.clone())

    def match(self, latents_TD: Tensor) -> Tensor:
        """Return the id (T,) int64 of the code nearest to each latent."""
        return (2 * latents_TD.float() @ self.codes_KD.T - self.codes_KD.square().sum(-1)).argmax(-1)

    @torch.no_grad()
    def update(self, latents: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> int:
        """Update sums, counts and codes; counts are smoothed (Laplace, 1e-5) so that none is 0."""
        latents_TD = latents.detach().flatten(0, -2).float()
        sums_KD, hits_K = self._sums_of_all_ranks(latents_TD, tokens.flatten())
        self.counts_K.lerp_(hits_K, 1 - self.decay)
        self.sums_KD.lerp_(sums_KD, 1 - self.decay)
        total = self.counts_K.sum()
        smoothed_K = (self.counts_K + SMOOTHING) / (total + len(self.counts_K) * SMOOTHING) * total
        self.codes_KD.copy_(self.sums_KD / smoothed_K[:, None])
        return self.replace_dead(F.normalize(latents_TD, dim=-1), generator)


def _num_ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _gathered_from_ranks(latents_TD: Tensor) -> Tensor:
    """Return the latents of all ranks, in the order of ranks."""
    if _num_ranks() == 1:
        return latents_TD
    counts = [torch.zeros(1, dtype=torch.int64, device=latents_TD.device) for _ in range(_num_ranks())]
    distributed.all_gather(counts, torch.full_like(counts[0], len(latents_TD)))
    sizes = [int(count) for count in counts]
    padded_TD = F.pad(latents_TD, (0, 0, 0, max(sizes) - len(latents_TD))).contiguous()  # all_gather needs one shape
    parts = [torch.empty_like(padded_TD) for _ in sizes]
    distributed.all_gather(parts, padded_TD)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _take_from_first_rank(tensor: Tensor) -> None:
    """Copy a tensor from the first rank: sums on other machines may differ in the last bits."""
    if _num_ranks() > 1:
        distributed.broadcast(tensor, src=0)
