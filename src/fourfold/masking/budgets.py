"""Token budgets of modalities: shares from a Dirichlet distribution, then whole numbers (4M-7, arXiv 2312.06647 §2.2)."""

# B samples, E modalities, X extra draws

import numpy as np


def dirichlet_logits(alphas_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return logarithms of unnormalized Dirichlet shares, float64 of the shape of `alphas_BE`; −inf where alpha is 0.

    Logarithms of Gamma(α) variates are drawn as ln Gamma(α + 1) + ln(U) / α. This is exact, and does not underflow for
    alphas as small as 0.01, where NumPy's Dirichlet shares become 0.
    """
    gamma = np.log(rng.standard_gamma(alphas_BE + 1))
    uniform = -rng.standard_exponential(alphas_BE.shape)  # ln U
    with np.errstate(divide="ignore"):
        return np.where(alphas_BE > 0, gamma + uniform / np.where(alphas_BE > 0, alphas_BE, 1), -np.inf)


def dirichlet_shares(alphas_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return shares that sum to 1 along the last axis, float64; each row of alphas needs a value above 0."""
    logits_BE = dirichlet_logits(alphas_BE, rng)
    shares_BE = np.exp(logits_BE - logits_BE.max(-1, keepdims=True))
    return shares_BE / shares_BE.sum(-1, keepdims=True)


def leftover_tokens(shares_BE: np.ndarray, total_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ⌊share · total⌋, int64 (B, E), and the number of tokens that remain of each total, int64 (B,), at most E."""
    budgets_BE = np.floor(shares_BE * total_B[:, None]).astype(np.int64)
    return budgets_BE, total_B - budgets_BE.sum(1)


def whole_tokens(shares_BE: np.ndarray, extra_BXE: np.ndarray, total_B: np.ndarray, caps_BE: np.ndarray) -> np.ndarray:
    """Return budgets, int64 (B, E).

    A budget is ⌊share · total⌋; each remaining token goes to the arg-max of one extra draw; then the caps apply. Tokens
    that a cap removes are not given to other modalities: their slots stay empty, as in 4M.

    Args:
        shares_BE: shares of each sample.
        extra_BXE: extra draws of shares or of their logarithms; X is at least the number of remaining tokens.
        total_B: tokens of each sample.
        caps_BE: maximum of each budget.
    """
    budgets_BE, leftover_B = leftover_tokens(shares_BE, total_B)
    samples, draws = np.nonzero(np.arange(extra_BXE.shape[1]) < leftover_B[:, None])
    np.add.at(budgets_BE, (samples, extra_BXE.argmax(-1)[samples, draws]), 1)
    return np.minimum(budgets_BE, caps_BE)


def draw_budgets(alphas_BE: np.ndarray, total_B: np.ndarray, caps_BE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return budgets of one side (input or target), int64 (B, E)."""
    shares_BE = dirichlet_shares(alphas_BE, rng)
    num_extra = int(leftover_tokens(shares_BE, total_B)[1].max(initial=0))
    extra_BXE = dirichlet_logits(np.repeat(alphas_BE[:, None], num_extra, 1), rng)
    return whole_tokens(shares_BE, extra_BXE, total_B, caps_BE)
