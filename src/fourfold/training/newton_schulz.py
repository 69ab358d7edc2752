"""Approximate orthogonalization of many matrices at once: the core of Muon (Jordan et al., 2024).

Each Newton-Schulz step maps the singular values x of a matrix to a x + b x³ + c x⁵ and keeps its singular vectors. A few
steps bring all singular values near 1, which is all that Muon needs.

`torch.optim.Muon` iterates over one matrix at a time, in bfloat16. Here all matrices of one shape share batched products, in
float32 on CPUs, and each shape uses the form of the iteration that needs fewer products (`GRAM_FROM_ASPECT`).
"""

# K matrices of one shape, R rows, C columns, R ≤ C

import torch
from torch import Tensor

# Coefficients (a, b, c) of the steps. Five steps: Jordan et al. (https://kellerjordan.github.io/posts/muon/). Three steps:
# the greedy minimax polynomials of Polar Express (Amsel et al., 2025, arXiv 2505.16932) for singular values from 0.02 to 1.
# Four steps from 0.005 diverge in bfloat16, where rounding moves values out of the interval.
NEWTON_SCHULZ: dict[int, tuple[tuple[float, float, float], ...]] = {
    3: ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107)),
    5: ((3.4445, -4.7750, 2.0315),) * 5,
}

# Products of s steps: plain 2 R²C + R³ a step, on Gram matrices (4 s − 3) R³ + 2 R²C in all. They are equal where C is about
# 1.5 R, for 3 and for 5 steps.
GRAM_FROM_ASPECT = 1.5


def orthogonalize(matrices_KRC: Tensor, steps: int = 3) -> Tensor:
    """Return the approximate semi-orthogonal factor U Vᵀ of each matrix U S Vᵀ.

    Args:
        matrices_KRC: float32 or bfloat16. Their scale does not matter; zero matrices stay zero.
        steps: Number of Newton-Schulz steps, a key of `NEWTON_SCHULZ`.
    """
    if matrices_KRC.shape[1] > matrices_KRC.shape[2]:
        return orthogonalize(matrices_KRC.mT, steps).mT
    # Gradients of 1e-20 occur (saturated attention). Their products would underflow, and with them the bound below.
    matrices_KRC = matrices_KRC / matrices_KRC.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    gram_KRR = matrices_KRC @ matrices_KRC.mT
    # √‖X Xᵀ‖ bounds the largest singular value more tightly than the usual ‖X‖, and the product is needed anyway.
    square_K11 = gram_KRR.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    gram_KRR = gram_KRR / square_K11
    is_long = matrices_KRC.shape[2] > GRAM_FROM_ASPECT * matrices_KRC.shape[1]
    # Rounding errors grow with each step on Gram matrices: that form needs float32.
    if is_long and matrices_KRC.dtype == torch.float32:
        return (_polynomial(gram_KRR, NEWTON_SCHULZ[steps]) / square_K11.sqrt()) @ matrices_KRC
    x_KRC = matrices_KRC / square_K11.sqrt()
    for index, (a, b, c) in enumerate(NEWTON_SCHULZ[steps]):
        if index:
            gram_KRR = torch.bmm(x_KRC, x_KRC.mT, out=gram_KRR)
        x_KRC = torch.baddbmm(x_KRC, torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c), x_KRC, beta=a)
    return x_KRC


def _polynomial(gram_KRR: Tensor, coefficients: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Return the polynomial in X Xᵀ that multiplies X in all steps together.

    Polynomials of one matrix commute, so the steps need only Gram matrices, and the long side of X is used twice only.
    """
    product_KRR: Tensor | None = None
    for index, (a, b, c) in enumerate(coefficients):
        factor_KRR = torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c)
        factor_KRR.diagonal(dim1=1, dim2=2).add_(a)
        product_KRR = factor_KRR if product_KRR is None else product_KRR @ factor_KRR
        if index + 1 < len(coefficients):
            gram_KRR = factor_KRR @ gram_KRR @ factor_KRR
    assert product_KRR is not None
    return product_KRR
