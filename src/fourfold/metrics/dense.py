"""Metrics of images and features, each as a `Statistic` over samples and as a plain number.

Arrays are (N, H, W) or (N, H, W, 3); `valid` selects the pixels that count. Depth and normals are averaged over pixels (Eigen
et al. 2014, arXiv 1406.2283), the mIoU is that of the summed confusion (PASCAL VOC, Everingham et al. 2010).
"""

# N samples, H height, W width, C classes or channels, Q queries, G gallery, R weightings

import math

import numpy as np
from scipy.ndimage import binary_dilation

from fourfold.metrics.statistics import Statistic, SumStatistic, mean, ratio, value, values

MIN_SQUARED_ERROR = 255**2 * 1e-10  # a perfect image has 100 dB instead of infinity


def depth_statistics(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict[str, Statistic]:
    """Return `abs_rel` = mean |d − d*| / d* and `delta1` = share of pixels with max(d/d*, d*/d) < 1.25.

    Args:
        predicted, truth: (N, H, W) meters, any float type.
        valid: (N, H, W) bool, pixels that have a depth, e.g. no sky.
    """
    predicted, truth, valid = _aligned(predicted, truth, valid)
    predicted = np.maximum(predicted.astype(np.float64), 1e-6)
    truth = np.where(valid, truth.astype(np.float64), 1.0)
    relative = np.where(valid, np.abs(predicted - truth) / truth, 0.0)
    close = valid & (np.maximum(predicted / truth, truth / predicted) < 1.25)
    pixels_N = _per_sample(valid)
    return {"abs_rel": ratio(_per_sample(relative), pixels_N), "delta1": ratio(_per_sample(close), pixels_N)}


def aligned_depth(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return s · predicted + t with the scale s and shift t of each image that fit the truth best by least squares.

    So depth without a unit is compared with depth in meters (Ranftl et al., 2020, arXiv 1907.01341, eq. 4, for disparity).
    An image whose prediction is constant becomes the mean of its truth.

    Args:
        predicted, truth: (N, H, W), any float type.
        valid: (N, H, W) bool, the pixels that count.
    """
    predicted, truth, valid = _aligned(predicted, truth, valid)
    predicted, truth = predicted.astype(np.float64), np.where(valid, truth, 0).astype(np.float64)
    pixels_N = np.maximum(_per_sample(valid), 1)
    mean_predicted, mean_truth = (
        (_per_sample(values * valid) / pixels_N).reshape(-1, *(1,) * (valid.ndim - 1)) for values in (predicted, truth)
    )
    difference = (predicted - mean_predicted) * valid
    variance_N = _per_sample(difference**2)
    scale_N = np.where(variance_N > 0, _per_sample(difference * truth) / np.where(variance_N > 0, variance_N, 1), 0)
    return scale_N.reshape(mean_truth.shape) * (predicted - mean_predicted) + mean_truth


def depth_errors(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Return `abs_rel` and `delta1` of metric depth (N, H, W) over the valid pixels."""
    return values(depth_statistics(predicted, truth, valid))


def unit_normals(stored: np.ndarray) -> np.ndarray:
    """Return unit vectors float64 (..., 3) from uint8 storage (n * 127.5 + 127.5) or from floats of any length."""
    vectors = stored.astype(np.float64)
    if stored.dtype == np.uint8:
        vectors = vectors / 127.5 - 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def angles(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between normals (..., 3), given as uint8 storage or as vectors."""
    cosine = (unit_normals(predicted) * unit_normals(truth)).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def normal_statistics(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray, objects: np.ndarray) -> dict[str, Statistic]:
    """Return `mean_angle` over valid pixels and `mean_angle_objects` over valid pixels on objects, in degrees."""
    predicted, truth, valid, objects = _aligned(predicted, truth, valid, objects)
    degrees = angles(predicted, truth)
    return {
        "mean_angle": ratio(_per_sample(degrees * valid), _per_sample(valid)),
        "mean_angle_objects": ratio(_per_sample(degrees * (valid & objects)), _per_sample(valid & objects)),
    }


def normal_angles(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray, objects: np.ndarray | None = None
) -> dict[str, float]:
    """Return `mean_angle` and, when `objects` is given, `mean_angle_objects` in degrees; normals as uint8 or vectors."""
    result = values(normal_statistics(predicted, truth, valid, valid if objects is None else objects))
    return result if objects is not None else {"mean_angle": result["mean_angle"]}


def confusion(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the confusion per sample, int64 (N, C, C): rows are truth, columns prediction. Ids ≥ C are left out."""
    predicted, truth = _aligned(predicted, truth)
    count = len(truth)
    predicted_NP = _flat(predicted).astype(np.int64)
    truth_NP = _flat(truth).astype(np.int64)
    counted = (truth_NP < num_classes) & (predicted_NP < num_classes)
    code = np.arange(count)[:, None] * num_classes**2 + truth_NP * num_classes + predicted_NP
    return np.bincount(code[counted], minlength=count * num_classes**2).reshape(count, num_classes, num_classes)


def mean_iou(confusion_CC: np.ndarray, classes: list[int] | None = None) -> float | np.ndarray:
    """Return the mean IoU of a summed confusion (..., C, C) over the classes (all by default) that occur in it."""
    hits = np.diagonal(confusion_CC, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion_CC.sum(-1) + confusion_CC.sum(-2) - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, hits / union, np.nan)
    chosen = iou if classes is None else iou[..., classes]
    present = np.isfinite(chosen)  # a class that occurs nowhere does not enter the mean
    with np.errstate(invalid="ignore"):
        result = np.where(present, chosen, 0).sum(-1) / present.sum(-1)
    return float(result) if result.ndim == 0 else result


def miou(predicted: np.ndarray, truth: np.ndarray, num_classes: int, classes: list[int] | None = None) -> float:
    """Return the mean IoU of class maps (N, H, W) over `classes` (all by default) that occur in either."""
    return float(mean_iou(confusion(predicted, truth, num_classes).sum(axis=0), classes))


def segmentation_statistics(
    predicted: np.ndarray, truth: np.ndarray, num_classes: int, object_classes: list[int]
) -> dict[str, Statistic]:
    """Return `miou` over all classes and `miou_objects` over `object_classes`."""
    sums_NK = _flat(confusion(predicted, truth, num_classes)).astype(np.float64)

    def over(classes: list[int] | None) -> SumStatistic:
        return SumStatistic(sums_NK, lambda sums: mean_iou(sums.reshape(-1, num_classes, num_classes), classes))  # type: ignore[arg-type, return-value]

    return {"miou": over(None), "miou_objects": over(object_classes)}


def edge_statistic(predicted: np.ndarray, truth: np.ndarray) -> Statistic:
    """Return F1 of edge pixels within one pixel of an edge of the other, over all images (BSDS, Martin et al. 2004).

    Edge maps are (N, H, W); any value above 0 is an edge.
    """
    predicted_edges, true_edges = (edges > 0 for edges in _aligned(predicted, truth))
    near = np.ones((1, 3, 3), bool)
    right = predicted_edges & binary_dilation(true_edges, near)
    met = true_edges & binary_dilation(predicted_edges, near)
    sums_N4 = np.stack([_per_sample(pixels) for pixels in (right, predicted_edges, met, true_edges)], axis=1)

    def harmonic_mean(sums: np.ndarray) -> np.ndarray:
        num_right, num_predicted, num_met, num_true = sums.T  # precision right / predicted, recall met / true
        both = num_right * num_met
        f1 = np.where(both > 0, 2 * both / (num_right * num_true + num_met * num_predicted), 0.0)
        return np.where(num_predicted + num_true > 0, f1, np.nan)  # no edge anywhere: nothing to compare

    return SumStatistic(sums_N4, harmonic_mean)


def psnr(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over images of the peak signal-to-noise ratio in dB of uint8 images (N, H, W, 3)."""
    return value(psnr_statistic(predicted, truth))


def psnr_statistic(predicted: np.ndarray, truth: np.ndarray) -> Statistic:
    """Return the mean PSNR in dB of uint8 images (N, H, W, 3); each image has its own."""
    predicted, truth = _aligned(predicted, truth)
    squared_N = _flat((predicted.astype(np.float64) - truth.astype(np.float64)) ** 2).mean(axis=1)
    return mean(10 * np.log10(255**2 / np.maximum(squared_N, MIN_SQUARED_ERROR)))


def cosine_statistic(predicted: np.ndarray, truth: np.ndarray) -> Statistic:
    """Return the mean cosine between feature vectors (N, ..., C); each sample counts once.

    True vectors of length 0 have no direction and do not count.
    """
    predicted, truth = _aligned(predicted, truth)
    cosine_NV = _flat((unit_vectors(predicted) * unit_vectors(truth)).sum(axis=-1))
    counted_NV = _flat(np.any(truth != 0, axis=-1))
    if counted_NV.all():
        return mean(cosine_NV.mean(axis=1))
    number_N = counted_NV.sum(axis=1)
    return mean((cosine_NV * counted_NV).sum(axis=1) / np.maximum(number_N, 1), number_N > 0)


def recall_at_k(queries_QC: np.ndarray, gallery_GC: np.ndarray, k: int = 1) -> float:
    """Return the share of queries whose own row of the gallery is among the k most similar by cosine (Q = G)."""
    return value(recall_statistic(queries_QC, gallery_GC, k))


def recall_statistic(queries_QC: np.ndarray, gallery_GC: np.ndarray, k: int = 1) -> SumStatistic:
    """Return recall at k over queries; the bootstrap resamples the queries and keeps the whole gallery.

    Ties count as their expectation under random order, so constant features score k / G, which is chance level. Undefined
    when the gallery has no more than k rows: then every answer is right.
    """
    queries_QC, gallery_GC = _aligned(queries_QC, gallery_GC)
    similarity_QG = np.round(unit_vectors(queries_QC) @ unit_vectors(gallery_GC).T, 9)
    own_Q1 = np.diagonal(similarity_QG)[:, None]
    better_Q = (similarity_QG > own_Q1).sum(axis=1)
    tied_Q = (similarity_QG == own_Q1).sum(axis=1)  # including itself
    return mean(np.clip((k - better_Q) / tied_Q, 0, 1), np.full(len(tied_Q), len(gallery_GC) > k))


def accuracy_statistic(predicted: np.ndarray, truth: np.ndarray) -> Statistic:
    """Return the share of equal entries of two arrays (N,)."""
    predicted, truth = _aligned(predicted, truth)
    return mean((predicted == truth).astype(np.float64))


def unit_vectors(features: np.ndarray) -> np.ndarray:
    """Return vectors (..., C) scaled to length 1, float64; zeros stay zeros."""
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _per_sample(values: np.ndarray) -> np.ndarray:
    return _flat(values).sum(axis=1).astype(np.float64)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))  # not -1, which is ambiguous without samples


def _aligned(first: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    arrays = [np.asarray(a) for a in (first, *others)]
    leading = [a.shape[:3] if a.ndim >= 3 else a.shape for a in arrays]
    if len(set(leading)) != 1:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(
            f"Predictions and truth have shapes {shapes}; they must be the same samples in the same order. Align them by key."
        )
    return tuple(arrays)
