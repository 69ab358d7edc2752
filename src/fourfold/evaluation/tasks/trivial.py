"""The trivial baselines: the best answer that never looks at its input, fitted on `val`."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks.computed import commonest_metadata, mean_palette
from fourfold.metrics.dense import edge_statistic, unit_normals
from fourfold.metrics.statistics import value
from fourfold.scenes.scoring import caption_statistics, described_shapes, set_f1
from fourfold.scenes.world.vocabulary import CLASS_NAMES, OBJECT_CLASSES

OBJECT_IDS = [CLASS_NAMES.index(name) for name in OBJECT_CLASSES]
EDGE_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)


def trivial_answers(fitted: Samples, count: int) -> dict[str, dict[str, Any]]:
    """Return, for `count` samples, the best answers that ignore the input, fitted on other samples: input → target → values."""
    truth = fitted.truth
    classes = commonest_class(truth["semseg"], len(CLASS_NAMES))
    of_rgb = {
        "depth": mean_depth(truth["depth"]),
        "normal": mean_normal(truth["normal"]),
        "semseg": classes,
        "clip": mean_feature(fitted.labels["clip"]),
        "det": {"instances": []},
        "caption": best_caption(fitted.captions),
    }
    picture = np.round(fitted.rgb.mean(axis=0)).astype(np.uint8)
    of_caption = {"semseg": showing(best_shapes(fitted.captions), classes), "rgb": picture}
    of_others = {name: fit(fitted.labels[name]) for name, fit in CONSTANTS_IF_LABELED.items() if name in fitted.labels}
    return {
        source: {target: _repeat(answer, count) for target, answer in answers.items()}
        for source, answers in {"rgb": of_rgb | of_others, "caption": of_caption | of_others}.items()
    }


def mean_depth(depth_NHW: np.ndarray) -> np.ndarray:
    """Return the median depth of each pixel (H, W), which minimizes the absolute error."""
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


def showing(shapes: set[str], background_HW: np.ndarray) -> np.ndarray:
    """Return a class map (H, W) that shows just these shapes, as blocks side by side."""
    picture = np.where(np.isin(background_HW, OBJECT_IDS), CLASS_NAMES.index("ground"), background_HW).astype(np.uint8)
    width = picture.shape[1] // max(len(OBJECT_CLASSES), 1)
    for place, shape in enumerate(sorted(shapes)):
        picture[picture.shape[0] // 2 :, place * width : (place + 1) * width] = CLASS_NAMES.index(shape)
    return picture


def commonest_edges(edges_NHW: np.ndarray) -> np.ndarray:
    """Return the map (H, W), 0 or 255, of the pixels that are edges most often: as many of them as give the best F1."""
    share_HW = (edges_NHW > 0).mean(axis=0)
    maps = [np.where(share_HW > level, 255, 0).astype(np.uint8) for level in np.quantile(share_HW, EDGE_QUANTILES)]
    return max(maps, key=lambda edges_HW: value(edge_statistic(_repeat(edges_HW, len(edges_NHW)), edges_NHW)))


def _repeat(answer: Any, count: int) -> Any:
    return np.repeat(answer[None], count, axis=0) if isinstance(answer, np.ndarray) else [answer] * count


CONSTANTS_IF_LABELED: dict[str, Callable[[Any], Any]] = {  # labels of all samples → one answer
    "clip_global": mean_feature,
    "canny_edge": commonest_edges,
    "color_palette": mean_palette,
    "metadata": commonest_metadata,
}
