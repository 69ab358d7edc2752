"""The nearest semi-orthogonal matrix, approximately: the core of Muon, in products only, for many matrices at once.

Each step maps the singular values x of a matrix to a x + b x³ + c x⁵ and leaves its singular vectors alone; a few such steps
bring all of them near 1, which is all that Muon needs.
"""

# K matrices of one shape, R rows, C columns

import torch
from torch import Tensor

# Polynomials a x + b x³ + c x⁵ of the steps, each the best for the interval that the one before leaves (Polar Express,
# Amsel et al., 2025, arXiv 2505.16932, greedy minimax); computed for singular values from 0.02 to 1; four steps from 0.005
# diverge in bfloat16, where rounding carries values out of the interval.
# Five steps are those of Jordan et al.
NEWTON_SCHULZ: dict[int, tuple[tuple[float, float, float], ...]] = {
    3: ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107)),
    5: ((3.4445, -4.7750, 2.0315),) * 5,
}


def orthogonalize(matrices_KRC: Tensor, steps: int = 3) -> Tensor:
    """Return the semi-orthogonal factor of each matrix, approximately (Newton-Schulz); float32 or bfloat16 (K, R, C).

    The start is scaled by √‖X Xᵀ‖, a bound on the largest singular value that is tighter than ‖X‖ and free.
    """
    if matrices_KRC.shape[1] > matrices_KRC.shape[2]:
        return orthogonalize(matrices_KRC.mT, steps).mT
    # Gradients of 1e-20 are real (saturated attention); their products would underflow and the bound with them
    matrices_KRC = matrices_KRC / matrices_KRC.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    gram_KRR = matrices_KRC @ matrices_KRC.mT
    square_K11 = gram_KRR.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    gram_KRR = gram_KRR / square_K11
    if matrices_KRC.dtype == torch.float32:
        return (_polynomial(gram_KRR, NEWTON_SCHULZ[steps]) / square_K11.sqrt()) @ matrices_KRC
    x_KRC = matrices_KRC / square_K11.sqrt()
    for index, (a, b, c) in enumerate(NEWTON_SCHULZ[steps]):
        gram_KRR = x_KRC @ x_KRC.mT if index else gram_KRR
        x_KRC = torch.baddbmm(x_KRC, torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c), x_KRC, beta=a)
    return x_KRC


def _polynomial(gram_KRR: Tensor, coefficients: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Return the matrix that the iteration multiplies X by: a polynomial in X Xᵀ. Such matrices commute, so the long side of
    X is touched only twice; but rounding noise grows with every step, so this form needs float32.
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
