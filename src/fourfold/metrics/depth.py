"""Metric depth by the protocols of public benchmarks: crops, caps, alignment, and errors that are averaged over images.

Errors: Eigen et al. 2014 (arXiv 1406.2283, section 3.4). Each is computed for every image and then averaged over images, as the
evaluation code of BTS (Lee et al. 2019, arXiv 1907.10326) and Monodepth2 (Godard et al. 2019, arXiv 1806.01260) does.
"""

# H W image, P valid pixels

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourfold.metrics.running import Bootstrap, RunningSums, Score

Crop = Literal["none", "eigen_nyu", "eigen_kitti", "garg"]
Alignment = Literal["none", "median", "scale_and_shift", "inverse_scale_and_shift"]
ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
EIGEN_NYU = (45, 471, 41, 601)  # top, bottom, left, right of 480 x 640 pixels
# the same as shares of height and width
CROPS = {
    "eigen_kitti": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016, arXiv 1603.04992
}


@dataclass(frozen=True)
class DepthProtocol:
    """Which pixels count, and what is done to a prediction before it is compared."""

    crop: Crop = "none"
    min_depth: float = 1e-3  # meters; pixels whose true depth is outside do not count, and predictions are clamped
    max_depth: float = 10.0
    alignment: Alignment = "none"  # of the prediction to the truth of each image; anything but "none" needs the truth

    def describe(self) -> str:
        """Return the protocol in a few words, for tables."""
        crop = {"none": "no crop", "eigen_nyu": "Eigen crop", "eigen_kitti": "Eigen crop", "garg": "Garg crop"}[self.crop]
        aligned = {
            "none": "no alignment",
            "median": "median scaling",
            "scale_and_shift": "scale and shift fitted",
            "inverse_scale_and_shift": "scale and shift of 1/depth fitted",
        }[self.alignment]
        return f"{crop}, {self.min_depth:g} to {self.max_depth:g} m, {aligned}"


def crop_mask(crop: Crop, height: int, width: int) -> np.ndarray:
    """Return the pixels inside a crop, bool (H, W).

    Raises:
        ValueError: the crop is defined for another size.
    """
    if crop == "eigen_nyu":
        if (height, width) != (480, 640):
            raise ValueError(f"The Eigen crop of NYUv2 needs 480 x 640 pixels, got {height} x {width}. Use the official size.")
        top, bottom, left, right = EIGEN_NYU
    elif crop == "none":
        top, bottom, left, right = 0, height, 0, width
    else:
        shares = CROPS[crop]
        top, bottom = int(shares[0] * height), int(shares[1] * height)
        left, right = int(shares[2] * width), int(shares[3] * width)
    mask_HW = np.zeros((height, width), bool)
    mask_HW[top:bottom, left:right] = True
    return mask_HW


def valid_depth(truth_HW: np.ndarray, protocol: DepthProtocol) -> np.ndarray:
    """Return the pixels that count, bool (H, W): a true depth inside the limits and the crop."""
    inside = (truth_HW > protocol.min_depth) & (truth_HW < protocol.max_depth)
    return inside & crop_mask(protocol.crop, *truth_HW.shape)


def align(predicted_P: np.ndarray, truth_P: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Return a prediction aligned with the truth of the same pixels, float64 (P,).

    `median` scales by the ratio of medians (Zhou et al. 2017, arXiv 1704.07813); `scale_and_shift` fits both by least squares
    (MiDaS, Ranftl et al. 2020, arXiv 1907.01341, section 5), `inverse_scale_and_shift` does so between inverse depths.
    """
    if alignment == "none":
        return predicted_P
    if alignment == "median":
        return predicted_P * (np.median(truth_P) / max(float(np.median(predicted_P)), 1e-12))
    if alignment == "scale_and_shift":
        return _fitted(predicted_P, truth_P)
    inverse_P = _fitted(1 / np.maximum(predicted_P, 1e-6), 1 / truth_P)
    return np.where(inverse_P > 0, 1 / np.where(inverse_P > 0, inverse_P, 1), np.inf)  # a pole is far away: clamped later


def _fitted(predicted_P: np.ndarray, truth_P: np.ndarray) -> np.ndarray:
    design_P2 = np.stack([predicted_P, np.ones_like(predicted_P)], axis=1)
    scale_and_shift, *_ = np.linalg.lstsq(design_P2, truth_P, rcond=None)
    return design_P2 @ scale_and_shift


def depth_errors(predicted_HW: np.ndarray, truth_HW: np.ndarray, protocol: DepthProtocol) -> dict[str, float] | None:
    """Return ERRORS of one image; None when no pixel counts.

    Args:
        predicted_HW: meters, in the size of the truth. NaN counts as the minimum, infinity as the maximum.
        truth_HW: meters, 0 or NaN where unknown.
        protocol: which pixels count.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted_HW.shape != truth_HW.shape:
        raise ValueError(
            f"The prediction has shape {predicted_HW.shape} and the truth {truth_HW.shape}. "
            "Resize the prediction to the size of the truth."
        )
    valid_HW = valid_depth(truth_HW, protocol)
    if not valid_HW.any():
        return None
    low, high = protocol.min_depth, protocol.max_depth
    truth_P = truth_HW[valid_HW].astype(np.float64)
    predicted_P = np.nan_to_num(predicted_HW[valid_HW].astype(np.float64), nan=low, posinf=high, neginf=low)
    predicted_P = np.clip(align(predicted_P, truth_P, protocol.alignment), low, high)
    ratio_P = np.maximum(truth_P / predicted_P, predicted_P / truth_P)
    log_P = np.log(predicted_P) - np.log(truth_P)
    squared_P = (predicted_P - truth_P) ** 2
    return {
        "abs_rel": float(np.mean(np.abs(predicted_P - truth_P) / truth_P)),
        "sq_rel": float(np.mean(squared_P / truth_P)),
        "rmse": float(np.sqrt(squared_P.mean())),
        "rmse_log": float(np.sqrt(np.mean(log_P**2))),
        "log10": float(np.mean(np.abs(log_P)) / np.log(10)),
        "silog": float(100 * np.sqrt(max(np.mean(log_P**2) - np.mean(log_P) ** 2, 0.0))),
        **{f"delta{power}": float(np.mean(ratio_P < 1.25**power)) for power in (1, 2, 3)},
    }


class DepthScorer:
    """Averages the errors of images; images without a pixel that counts are left out and counted."""

    def __init__(self, protocol: DepthProtocol, bootstrap: Bootstrap) -> None:
        self.protocol, self.left_out = protocol, 0
        self._sums = RunningSums(bootstrap)

    def add(self, predicted_HW: np.ndarray, truth_HW: np.ndarray) -> dict[str, float] | None:
        """Add one image and return its errors; see `depth_errors`."""
        errors = depth_errors(predicted_HW, truth_HW, self.protocol)
        if errors is None:
            self.left_out += 1
        else:
            self._sums.add(np.array([*errors.values(), 1.0]))
        return errors

    def scores(self) -> dict[str, Score]:
        """Return the mean over images of each of ERRORS."""
        return {name: self._sums.mean(index, len(ERRORS)) for index, name in enumerate(ERRORS)}
