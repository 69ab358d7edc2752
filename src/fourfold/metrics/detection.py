"""Detection by the protocols of COCO and PASCAL VOC; a scorer keeps 32 bytes for each detection, and no image.

COCO (Lin et al. 2014, arXiv 1405.0312): 101 recall points, IoU 0.50 to 0.95, areas by the area of the mask, crowds ignored.
VOC (Everingham et al. 2010): IoU 0.5 with boxes that include their last pixel, difficult objects ignored; 11 recall points in
2007, the whole area under the curve since 2010. `fourfold.metrics.boxes` has AP50 of a split in memory.
"""

# D detections of an image or a class, G true boxes, T IoU thresholds, A area ranges, R replicates, N images

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fourfold.metrics.boxes import MAX_DETECTIONS, RECALL_POINTS, box_iou
from fourfold.metrics.running import Bootstrap, Score, percentile_interval

IOUS_T = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels
CHUNK = 50  # replicates computed at once


@dataclass(frozen=True)
class Detections:
    """Boxes of one image that a model found."""

    box_D4: np.ndarray  # xmin, ymin, xmax, ymax in pixels
    class_D: np.ndarray  # integers
    score_D: np.ndarray  # not thresholded: low scores belong to the curve


@dataclass(frozen=True)
class TrueBoxes:
    """Annotated boxes of one image."""

    box_G4: np.ndarray  # xmin, ymin, xmax, ymax in pixels
    class_G: np.ndarray
    area_G: np.ndarray  # pixels of the mask, which COCO's size ranges refer to
    ignored_G: np.ndarray  # bool: crowds of COCO, difficult objects of VOC


@dataclass
class _Class:
    """What is kept of one class: for each detection its image, score and outcomes; for each image the number of objects."""

    image: list[np.ndarray] = field(default_factory=list)  # int32 (D,)
    score: list[np.ndarray] = field(default_factory=list)  # float64 (D,)
    outcome: list[np.ndarray] = field(default_factory=list)  # int8 (D, A, T): 1 hit, 0 miss, -1 does not count
    objects: dict[int, np.ndarray] = field(default_factory=dict)  # image → (A,)

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images and outcomes of all detections, best score first."""
        if not self.score:
            return np.zeros(0, np.int32), np.zeros((0, 1, 1), np.int8)
        order = np.argsort(-np.concatenate(self.score), kind="stable")
        return np.concatenate(self.image)[order], np.concatenate(self.outcome)[order]


Curve = Callable[[np.ndarray, np.ndarray], float]  # recall (D,), precision (D,) → AP


class _Scorer:
    """The part that both protocols share: classes, curves and replicates."""

    def __init__(self, bootstrap: Bootstrap, curve: Curve, areas: int, thresholds: int) -> None:
        self._classes: dict[int, _Class] = defaultdict(_Class)
        self._bootstrap, self._curve = bootstrap, curve
        self._areas, self._thresholds = areas, thresholds
        self.images = 0

    def _keep(self, class_id: int, score_D: np.ndarray, outcome_DAT: np.ndarray, objects_A: np.ndarray) -> None:
        kept = self._classes[class_id]
        if len(score_D):
            kept.image.append(np.full(len(score_D), self.images, np.int32))
            kept.score.append(score_D.astype(np.float64))
            kept.outcome.append(outcome_DAT.astype(np.int8))
        if objects_A.any():
            kept.objects[self.images] = objects_A

    def precision_of_classes(self, area: int = 0) -> dict[int, np.ndarray]:
        """Return AP (T,) of each class that has an object of an area range."""
        found = {}
        for class_id in sorted(self._classes):
            kept = self._classes[class_id]
            total = sum(int(objects[area]) for objects in kept.objects.values())
            if total:
                _, outcome_DAT = kept.joined()
                found[class_id] = self._average_precision(outcome_DAT[:, area] if len(outcome_DAT) else None, total)
        return found

    def _average_precision(self, outcome_DT: np.ndarray | None, total: float) -> np.ndarray:
        if outcome_DT is None:
            return np.zeros(self._thresholds)
        hits_DT, seen_DT = (np.cumsum(mask, axis=0, dtype=np.float64) for mask in (outcome_DT == 1, outcome_DT >= 0))
        precision_DT = hits_DT / np.maximum(seen_DT, 1e-12)
        return np.array([self._curve(hits_DT[:, t] / total, precision_DT[:, t]) for t in range(self._thresholds)])

    def _replicates(self) -> np.ndarray:
        """Return AP of the first area range, averaged over classes, float64 (R, T), with Poisson weights of the images."""
        rng, count = self._bootstrap.generator(), self._bootstrap.replicates
        joined = {class_id: kept.joined() for class_id, kept in sorted(self._classes.items()) if kept.objects}
        rows = []
        for start in range(0, count, CHUNK):
            weights_RN = rng.poisson(1.0, size=(min(CHUNK, count - start), self.images)).astype(np.float64)
            each_KRT = np.stack([self._weighted(class_id, *pair, weights_RN) for class_id, pair in joined.items()])
            defined = np.isfinite(each_KRT)
            rows.append(np.where(defined, each_KRT, 0).sum(0) / np.maximum(defined.sum(0), 1))
        return np.concatenate(rows) if rows else np.zeros((0, self._thresholds))

    def _weighted(self, class_id: int, image_D: np.ndarray, outcome_DAT: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
        objects = self._classes[class_id].objects
        total_R = weights_RN[:, list(objects)] @ np.array([counts[0] for counts in objects.values()], float)
        result_RT = np.full((len(weights_RN), self._thresholds), np.nan)
        for t in range(self._thresholds):
            outcome_D = outcome_DAT[:, 0, t] if len(outcome_DAT) else np.zeros(0, np.int8)
            weight_RD = weights_RN[:, image_D]
            hits_RD = np.cumsum(weight_RD * (outcome_D == 1), axis=1)
            seen_RD = np.cumsum(weight_RD * (outcome_D >= 0), axis=1)
            precision_RD = hits_RD / np.maximum(seen_RD, 1e-12)
            for r in np.flatnonzero(total_R > 0):
                result_RT[r, t] = self._curve(hits_RD[r] / total_R[r], precision_RD[r])
        return result_RT


class CocoScorer(_Scorer):
    """AP of COCO's evaluation code."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        super().__init__(bootstrap, interpolated_101, len(AREAS), len(IOUS_T))

    def add(self, found: Detections, truth: TrueBoxes) -> None:
        """Add one image; images without objects count too, because detections there are false."""
        for class_id in np.union1d(found.class_D, truth.class_G).tolist():
            chosen = np.flatnonzero(found.class_D == class_id)
            chosen = chosen[np.argsort(-found.score_D[chosen], kind="stable")][:MAX_DETECTIONS]
            mine = np.flatnonzero(truth.class_G == class_id)
            boxes_D4, crowd_G, area_G = found.box_D4[chosen], truth.ignored_G[mine].astype(bool), truth.area_G[mine]
            iou_DG = box_iou(boxes_D4, truth.box_G4[mine], crowd_G)
            size_D = np.prod(boxes_D4[:, 2:] - boxes_D4[:, :2], axis=-1)
            outcomes, objects = [], []
            for low, high in AREAS.values():
                ignored_G = crowd_G | (area_G < low) | (area_G > high)
                is_outside_D = (size_D < low) | (size_D > high)
                outcomes.append(coco_outcomes(iou_DG, ignored_G, crowd_G, is_outside_D))
                objects.append((~ignored_G).sum())
            self._keep(class_id, found.score_D[chosen], np.stack(outcomes, axis=1), np.array(objects))
        self.images += 1

    def scores(self) -> dict[str, Score]:
        """Return `ap`, `ap50`, `ap75` with intervals, and `ap_small`, `ap_medium`, `ap_large`; NaN without such objects."""
        of_areas = [list(self.precision_of_classes(area).values()) for area in range(len(AREAS))]
        all_T, *sizes = (np.mean(each, axis=0) if each else np.full(len(IOUS_T), np.nan) for each in of_areas)
        replicates_RT = self._replicates() if of_areas[0] else np.zeros((0, len(IOUS_T)))
        named = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}
        scores = {
            name: Score(float(all_T[part].mean()), percentile_interval(replicates_RT[:, part].mean(axis=1)))
            for name, part in named.items()
        }
        return scores | {f"ap_{name}": Score(float(each.mean())) for name, each in zip(list(AREAS)[1:], sizes, strict=True)}


def coco_outcomes(iou_DG: np.ndarray, ignored_G: np.ndarray, crowd_G: np.ndarray, outside_D: np.ndarray) -> np.ndarray:
    """Match the detections of one image and class, best score first, at each IoU threshold: int8 (D, T).

    A detection takes the free object that it overlaps most, an ignored one only if it finds no other; a crowd is never taken.
    1 is a hit, 0 a false positive; -1 matched something ignored, or nothing and is itself outside of the area range.
    """
    outcome_DT = np.tile(np.where(outside_D, -1, 0).astype(np.int8)[:, None], (1, len(IOUS_T)))
    if not iou_DG.size:
        return outcome_DT
    order = np.argsort(ignored_G, kind="stable")
    iou_DG, ignored_G, crowd_G = iou_DG[:, order], ignored_G[order], crowd_G[order]
    threshold_T1 = np.minimum(IOUS_T, 1 - 1e-10)[:, None]
    free_TG = np.ones((len(IOUS_T), len(ignored_G)), bool)
    rows = np.arange(len(IOUS_T))
    for d, iou_G in enumerate(iou_DG):
        possible_TG = (free_TG | crowd_G) & (iou_G >= threshold_T1)
        if not possible_TG.any():
            continue
        has_object_T1 = (possible_TG & ~ignored_G).any(axis=1, keepdims=True)
        possible_TG &= ~(has_object_T1 & ignored_G)
        overlap_TG = np.where(possible_TG, iou_G, -1.0)
        best_T = overlap_TG.shape[1] - 1 - overlap_TG[:, ::-1].argmax(axis=1)  # of equal ones the last, as in COCO's code
        met_T = possible_TG[rows, best_T]
        outcome_DT[d, met_T] = np.where(ignored_G[best_T[met_T]], -1, 1)
        free_TG[rows[met_T], best_T[met_T]] = False
    return outcome_DT


class VocScorer(_Scorer):
    """AP50 of PASCAL VOC: with 11 recall points (2007), or of the whole curve (since 2010)."""

    def __init__(self, bootstrap: Bootstrap, eleven_points: bool) -> None:
        super().__init__(bootstrap, eleven_point_area if eleven_points else area_under_curve, 1, 1)

    def add(self, found: Detections, truth: TrueBoxes) -> None:
        """Add one image."""
        for class_id in np.union1d(found.class_D, truth.class_G).tolist():
            chosen = np.flatnonzero(found.class_D == class_id)
            chosen = chosen[np.argsort(-found.score_D[chosen], kind="stable")]
            mine = np.flatnonzero(truth.class_G == class_id)
            difficult_G = truth.ignored_G[mine].astype(bool)
            iou_DG = box_iou(found.box_D4[chosen], truth.box_G4[mine], pixel=1.0)
            outcome_D = voc_outcomes(iou_DG, difficult_G)
            self._keep(class_id, found.score_D[chosen], outcome_D[:, None, None], np.array([(~difficult_G).sum()]))
        self.images += 1

    def scores(self) -> dict[str, Score]:
        """Return `ap50`, the mean over classes; NaN without any object."""
        each = list(self.precision_of_classes().values())
        if not each:
            return {"ap50": Score(float("nan"))}
        return {"ap50": Score(float(np.mean(each)), percentile_interval(self._replicates()[:, 0]))}


def voc_outcomes(iou_DG: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
    """Match the detections of one image and class, best score first: int8 (D,), 1 hit, 0 false, -1 a difficult object.

    A detection has one candidate, the object that it overlaps most, also if that is taken.
    """
    outcome_D, is_taken_G = np.zeros(len(iou_DG), np.int8), np.zeros(len(difficult_G), bool)
    for d, iou_G in enumerate(iou_DG):
        best = int(iou_G.argmax()) if len(iou_G) else -1
        if best < 0 or iou_G[best] < 0.5:
            continue
        if difficult_G[best]:
            outcome_D[d] = -1
        elif not is_taken_G[best]:
            outcome_D[d], is_taken_G[best] = 1, True
    return outcome_D


def interpolated_101(recall_D: np.ndarray, precision_D: np.ndarray) -> float:
    """Return the mean at 101 recalls of the best precision at that recall or a higher one."""
    envelope_D = np.maximum.accumulate(precision_D[::-1])[::-1]
    index = np.searchsorted(recall_D, RECALL_POINTS, side="left")
    return float(np.append(envelope_D, 0.0)[index].mean())


def eleven_point_area(recall_D: np.ndarray, precision_D: np.ndarray) -> float:
    """Return the mean of the best precision at recalls of at least 0, 0.1, ..., 1 (VOC 2007)."""
    points = np.arange(0.0, 1.1, 0.1)  # as in the original, whose last bits decide about equal recalls
    return float(np.mean([precision_D[recall_D >= point].max(initial=0.0) for point in points]))


def area_under_curve(recall_D: np.ndarray, precision_D: np.ndarray) -> float:
    """Return the area under the curve of the best precision at each recall or a higher one (VOC 2010 to 2012)."""
    recall = np.concatenate([[0.0], recall_D, [1.0]])
    precision = np.maximum.accumulate(np.concatenate([[0.0], precision_D, [0.0]])[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * precision[1:]).sum())
