"""How many tokens each modality gets: shares from a Dirichlet distribution, then whole numbers (4M-7 §2.2; 4m-facts §4)."""

# B samples, E modalities, X extra draws

import numpy as np


def dirichlet_logits(alphas_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return logarithms of unnormalized Dirichlet shares, float64 of the shape of `alphas_BE`; −inf where alpha is 0.

    ln Gamma(α) variates as ln Gamma(α + 1) + ln(U) / α: exact, and no underflow for alphas as small as 0.01.
    """
    gamma = np.log(rng.standard_gamma(alphas_BE + 1))
    uniform = -rng.standard_exponential(alphas_BE.shape)  # ln U
    with np.errstate(divide="ignore"):
        return np.where(alphas_BE > 0, gamma + uniform / np.where(alphas_BE > 0, alphas_BE, 1), -np.inf)


def dirichlet_shares(alphas_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return shares that sum to 1 along the last axis; raises nothing, but each row needs one alpha above 0."""
    logits_BE = dirichlet_logits(alphas_BE, rng)
    shares_BE = np.exp(logits_BE - logits_BE.max(-1, keepdims=True))
    return shares_BE / shares_BE.sum(-1, keepdims=True)


def leftover_tokens(shares_BE: np.ndarray, total_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (int64 (B, E) ⌊share · total⌋, int64 (B,) how many tokens that leaves; at most E)."""
    budgets_BE = np.floor(shares_BE * total_B[:, None]).astype(np.int64)
    return budgets_BE, total_B - budgets_BE.sum(1)


def whole_tokens(shares_BE: np.ndarray, extra_BXE: np.ndarray, total_B: np.ndarray, caps_BE: np.ndarray) -> np.ndarray:
    """Return int64 (B, E) budgets: ⌊share · total⌋, each leftover token to the arg-max of one extra draw, then the caps.

    What a cap removes is not given to others: it stays empty. `extra_BXE` may hold shares or their logarithms, X at least
    as many as tokens are left over.
    """
    budgets_BE, leftover_B = leftover_tokens(shares_BE, total_B)
    samples, draws = np.nonzero(np.arange(extra_BXE.shape[1]) < leftover_B[:, None])
    np.add.at(budgets_BE, (samples, extra_BXE.argmax(-1)[samples, draws]), 1)
    return np.minimum(budgets_BE, caps_BE)


def draw_budgets(alphas_BE: np.ndarray, total_B: np.ndarray, caps_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return int64 (B, E) budgets for one side, input or target."""
    shares_BE = dirichlet_shares(alphas_BE, rng)
    num_extra = int(leftover_tokens(shares_BE, total_B)[1].max(initial=0))
    extra_BXE = dirichlet_logits(np.repeat(alphas_BE[:, None], num_extra, 1), rng)
    return whole_tokens(shares_BE, extra_BXE, total_B, caps_BE)
