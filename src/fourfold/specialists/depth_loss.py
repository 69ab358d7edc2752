"""The loss of DenseDepth (Alhashim & Wonka 2018, arXiv 1812.11941, section 3.2): L1, gradients and SSIM of inverse depth.

The network learns y = m / depth, so that near pixels count more. In the paper m is the largest depth, and y goes from 10 to
100; here y = 100 for the nearest depth of the training data, so that data in other units need no other weights.
"""

# B batch, H height, W width

import torch
from torch import Tensor
from torch.nn import functional

MAX_INVERSE = 100.0  # of y, the range of the SSIM
WINDOW, SIGMA = 11, 1.5  # pixels, of the SSIM's Gaussian window (Wang et al. 2004)


def dense_depth_losses(
    predicted_BHW: Tensor, truth_BHW: Tensor, valid_BHW: Tensor, l1_weight: float = 0.1
) -> dict[str, Tensor]:
    """Return `l1`, `gradients` and `ssim`, weighted; their sum is eq. 1 of the paper.

    Args:
        predicted_BHW: inverse depth y.
        truth_BHW: the same of the labels; finite everywhere.
        valid_BHW: bool, where there is a label. Elsewhere the truth counts as predicted perfectly.
        l1_weight: λ; gradients and SSIM have weight 1.
    """
    truth_BHW = torch.where(valid_BHW, truth_BHW, predicted_BHW.detach())
    error_BHW = predicted_BHW - truth_BHW
    gradients = error_BHW.diff(dim=1).abs().mean() + error_BHW.diff(dim=2).abs().mean()
    similarity = structural_similarity(predicted_BHW, truth_BHW, MAX_INVERSE)
    return {
        "l1": l1_weight * error_BHW.abs().mean(),
        "gradients": gradients,
        "ssim": ((1 - similarity) / 2).clamp(0, 1),
    }


def structural_similarity(first_BHW: Tensor, second_BHW: Tensor, value_range: float) -> Tensor:
    """Return the mean SSIM (Wang et al. 2004) over all positions of a Gaussian window inside the image, a scalar.

    The same number as that of scikit-image, which has no gradient; torchmetrics also averages over a padded border.
    """
    side = min(WINDOW, *first_BHW.shape[1:])
    offsets = torch.arange(side, dtype=first_BHW.dtype, device=first_BHW.device) - (side - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()

    def smooth(maps_BHW: Tensor) -> Tensor:
        rows = functional.conv2d(maps_BHW[:, None], weights.view(1, 1, side, 1))
        return functional.conv2d(rows, weights.view(1, 1, 1, side))[:, 0]

    mean_first, mean_second = smooth(first_BHW), smooth(second_BHW)
    # variances do not depend on a shift, and those of numbers near 0 lose fewer digits in the differences
    shift = second_BHW.detach().mean()
    first, second, first_shifted, second_shifted = (
        first_BHW - shift,
        second_BHW - shift,
        mean_first - shift,
        mean_second - shift,
    )
    variance_first = smooth(first**2) - first_shifted**2
    variance_second = smooth(second**2) - second_shifted**2
    covariance = smooth(first * second) - first_shifted * second_shifted
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    luminance = (2 * mean_first * mean_second + c1) / (mean_first**2 + mean_second**2 + c1)
    return (luminance * (2 * covariance + c2) / (variance_first + variance_second + c2)).mean()
