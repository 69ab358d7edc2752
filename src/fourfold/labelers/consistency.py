"""How certain labels are: by their own confidence or score, and by how well they agree with labels of other modalities.

Values are collected over all shards as a histogram and the few least certain ones, so memory does not grow with the data.
"""

# B samples, H, W pixels, h, w pixels without the border

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fourfold.data.missing import Missing
from fourfold.data.shards import Sample, collate
from fourfold.labelers.geometry.normals import fast_normals
from fourfold.modalities.camera import Camera
from fourfold.modalities.class_table import ClassTable

SEGMENTATION = "semseg"  # the labels that boxes are compared with
CONFIDENCE = "confidence"  # beside raw labels: what labelers say about their own, {modality: 0 to 1}
NUM_LEAST = 12  # that are named for each measure and split


@dataclass(frozen=True)
class Measure:
    """One way to tell certain labels from uncertain ones.

    Attributes:
        name: `<modality>/<what>`.
        title, meaning: for people.
        top: the largest value; the smallest is 0.
        bins: of the histogram; their ends are round numbers.
        beside: the label that is compared, if any.
        setting: what filters by it, below `pseudo_labeling.integration`.
        is_worse_high: whether large values are the uncertain ones.
    """

    name: str
    title: str
    meaning: str
    top: float = 1.0
    bins: int = 20
    beside: str | None = None
    setting: str = ""
    is_worse_high: bool = False

    @property
    def modality(self) -> str:
        """The label that is measured."""
        return self.name.partition("/")[0]


ANGLE = Measure(
    "normal/angle",
    "Normals against depth",
    "Mean angle in degrees between the normals of an image and those of its depth. Both follow from one surface: a large angle "
    "means that one of them is wrong.",
    90.0,
    18,
    "depth",
    "max_normal_angle",
    is_worse_high=True,
)
SCORE = Measure("det/score", "Scores of boxes", "How sure the detector is of a box.", setting="min_score")
INSIDE = Measure(
    "det/inside",
    "Boxes against segments",
    "Share of the pixels of a box that the segmentation gives to its class, where it knows the class.",
    beside=SEGMENTATION,
    setting="min_class_overlap",
)


def measure_of(name: str) -> Measure:
    """Return a measure by its name."""
    known = {measure.name: measure for measure in (ANGLE, SCORE, INSIDE)}
    modality = name.partition("/")[0]
    return known.get(name) or Measure(
        name,
        f"Confidence of {modality}",
        "How sure the labeler is of a label; of several teachers, how far they agree.",
        setting=f"min_confidence.{modality}",
    )


@dataclass(frozen=True)
class Value:
    """How certain one label is; `index` is that of a box among those of its image."""

    value: float
    key: str
    index: int | None = None


Values = dict[str, list[Value]]  # by measure


def angles_to_depth(samples: Sequence[Sample], camera: Camera) -> dict[str, float]:
    """Return the angle of `normal_angles_to_depth` of each sample that has both labels, by key."""
    both = [one for one in samples if all(not isinstance(one.get(m, Missing("")), Missing) for m in ("depth", "normal"))]
    if not both:
        return {}
    batch = collate([{name: one[name] for name in ("__key__", "depth", "normal")} for one in both])
    angles_B = normal_angles_to_depth(batch["normal"], batch["depth"], camera)
    return dict(zip(batch["__key__"], angles_B.tolist(), strict=True))


def normal_angles_to_depth(normal_BHW3: np.ndarray, depth_BHW: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the mean angle in degrees (B,) between stored normals uint8 and normals computed from the depth (meters)."""
    fitted_Bhw3 = fast_normals(torch.from_numpy(np.asarray(depth_BHW, np.float32)), camera).numpy()
    stored_Bhw3 = np.asarray(normal_BHW3[:, 1:-1, 1:-1], np.float32) / 127.5 - 1
    cosine_Bhw = (fitted_Bhw3 * stored_Bhw3).sum(-1).clip(-1, 1)
    return np.degrees(np.arccos(cosine_Bhw)).mean((1, 2))


def share_inside(ids_HW: np.ndarray, box: Sequence[float], class_id: int, classes: ClassTable) -> float | None:
    """Return the share of a box's pixels that have a class, among those with a label; None where none has one."""
    H, W = ids_HW.shape
    xmin, ymin, xmax, ymax = box
    inside = ids_HW[int(ymin * H) : max(int(np.ceil(ymax * H)), 1), int(xmin * W) : max(int(np.ceil(xmax * W)), 1)]
    known = inside[~classes.is_ignored(inside)]
    return float((known == class_id).mean()) if known.size else None


def values_of(samples: Sequence[Sample], angles: Mapping[str, float], classes: ClassTable | None) -> Values:
    """Return how certain the labels of some samples are, by measure.

    Args:
        samples: integrated labels, with `confidence` where labelers have one.
        angles: of `angles_to_depth`.
        classes: the class table of the segmentation.
    """
    found: Values = {}
    for sample in samples:
        key = sample["__key__"]
        if key in angles and not isinstance(sample["normal"], Missing):
            found.setdefault(ANGLE.name, []).append(Value(angles[key], key))
        for modality, confidence in sample.get(CONFIDENCE, {}).items():
            if not isinstance(sample[modality], Missing):
                found.setdefault(f"{modality}/confidence", []).append(Value(confidence, key))
        for name, value in _values_of_boxes(sample, classes):
            found.setdefault(name, []).append(value)
    return found


def _values_of_boxes(sample: Sample, classes: ClassTable | None) -> Iterable[tuple[str, Value]]:
    boxes, ids_HW = sample.get("det", Missing("")), sample.get(SEGMENTATION, Missing(""))
    for index, instance in enumerate(() if isinstance(boxes, Missing) else boxes["instances"]):
        if "score" in instance:
            yield SCORE.name, Value(instance["score"], sample["__key__"], index)
        if classes is not None and not isinstance(ids_HW, Missing) and instance["class_name"] in classes.names:
            share = share_inside(ids_HW, instance["box"], classes.id_of(instance["class_name"]), classes)
            if share is not None:
                yield INSIDE.name, Value(share, sample["__key__"], index)


@dataclass
class Certainty:
    """The values of each measure over the shards of a split: a histogram, and the least certain labels."""

    counts: dict[str, np.ndarray] = field(default_factory=dict)
    least: dict[str, list[tuple[Value, str]]] = field(default_factory=dict)  # with the name of the shard

    def add(self, shard: str, values: Values) -> None:
        """Add the values of one shard."""
        for name, of_shard in values.items():
            measure = measure_of(name)
            bins = np.clip([value.value / measure.top * measure.bins for value in of_shard], 0, measure.bins - 1).astype(int)
            self.counts[name] = self.counts.get(name, 0) + np.bincount(bins, minlength=measure.bins)
            both = self.least.get(name, []) + [(value, shard) for value in of_shard]
            sign = -1 if measure.is_worse_high else 1
            both.sort(key=lambda pair: (sign * pair[0].value, pair[0].key, pair[0].index or 0))
            self.least[name] = both[:NUM_LEAST]

    def report(self) -> dict[str, Any]:
        """Return the histogram and the least certain labels of each measure, as JSON."""
        return {
            name: {
                "histogram": counts.tolist(),
                "least": [
                    {"key": one.key, "shard": shard, "value": round(one.value, 4)}
                    | ({} if one.index is None else {"index": one.index})
                    for one, shard in self.least[name]
                ],
            }
            for name, counts in sorted(self.counts.items())
        }
