"""The trivial baselines: the best answer that never looks at its input, fitted on `val`."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fourfold.evaluation.captions import caption_statistics, described_shapes, set_f1
from fourfold.evaluation.metrics import unit_normals
from fourfold.evaluation.statistics import value


def mean_depth(depth_NHW: np.ndarray) -> np.ndarray:
    """Return the median depth of each pixel (H, W), which minimises the absolute error."""
    return np.median(depth_NHW.astype(np.float32), axis=0)


def mean_normal(normal_NHWC: np.ndarray) -> np.ndarray:
    """Return the mean direction of each pixel (H, W, 3) as unit vectors."""
    return unit_normals(unit_normals(normal_NHWC).mean(axis=0))


def commonest_class(semseg_NHW: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the class that each pixel has most often, uint8 (H, W)."""
    counts = np.stack([(semseg_NHW == c).sum(axis=0) for c in range(num_classes)])
    return counts.argmax(axis=0).astype(np.uint8)


def mean_feature(clip: np.ndarray) -> np.ndarray:
    """Return the mean feature of each place (h, w, C), or of the whole image (C,)."""
    return clip.astype(np.float32).mean(axis=0)


def best_caption(captions: Sequence[str], most: int = 200) -> str:
    """Return the caption that, said of every image, has the highest pair F1."""
    captions = list(captions)[:most]
    return max(captions, key=lambda text: value(caption_statistics([text] * len(captions), captions)["pair_f1"]))


def best_shapes(captions: Sequence[str]) -> set[str]:
    """Return the set of shapes that, said of every image, has the highest F1."""
    truth = [described_shapes(text) for text in captions]
    known = sorted(set().union(*truth))
    choices = [set(c) for size in range(1, len(known) + 1) for c in combinations(known, size)]
    return max(choices, key=lambda shapes: value(set_f1([shapes] * len(truth), truth)), default=set())
