"""How good the teachers are, on exact truth."""

import numpy as np

from fourfold.data.shards import ShardSet
from fourfold.labelers.teachers import TeacherSet
from fourfold.metrics.boxes import average_precision_50
from fourfold.metrics.dense import depth_errors, miou, normal_angles, recall_at_k
from fourfold.scenes.world import CLASS_NAMES, GROUND_ID, SKY_ID

STAND_IN = "transfer_val"  # always rendered, so it has truth when `val` holds photographs


def measure_teachers(
    teachers: TeacherSet, shards: ShardSet, labels: ShardSet, truth: ShardSet, split: str = "val"
) -> dict[str, float]:
    """Return the quality of the labels of `split` against its truth, or of `transfer_val` when `split` has none.

    Depth and normals count where there is no sky (absolute relative error, share within 25 %, degrees); segmentation is the
    mean IoU over all classes and over those of objects; boxes AP at IoU 0.5; `clip/recall_at_1` is the share of pictures
    whose own caption is nearest among all of the split. Every value is a float: 0-1, or degrees.
    """
    split = split if split in truth.splits() else STAND_IN
    figures = {f"{name}": value for name, value in _dense_figures(labels, truth, split).items()}
    present = labels.modalities(split)
    if "det" in present:
        figures["det/ap50"] = average_precision_50(labels.load_column(split, "det"), truth.load_column(split, "det"))
    if "clip" in teachers.networks:
        _, pictures_NC = teachers.clip.encode_image(shards.load_column(split, "rgb"))
        captions_NC = teachers.clip.encode_text(shards.load_column(split, "caption"))
        figures["clip/recall_at_1"] = recall_at_k(pictures_NC, captions_NC, 1)
    return figures


def _dense_figures(labels: ShardSet, truth: ShardSet, split: str) -> dict[str, float]:
    present = labels.modalities(split)
    classes_NHW = truth.load_column(split, "semseg")
    seen, objects = classes_NHW != SKY_ID, classes_NHW > GROUND_ID
    figures: dict[str, float] = {}
    if "depth" in present:
        depth_NHW = labels.load_column(split, "depth")
        figures |= _under("depth", depth_errors(depth_NHW, truth.load_column(split, "depth"), seen))
    if "normal" in present:
        normal_NHW3 = labels.load_column(split, "normal")
        figures |= _under("normal", normal_angles(normal_NHW3, truth.load_column(split, "normal"), seen, objects))
    if "semseg" in present:
        found_NHW, num_classes = labels.load_column(split, "semseg"), len(CLASS_NAMES)
        object_ids = list(range(GROUND_ID + 1, num_classes))
        figures["semseg/miou"] = miou(found_NHW, classes_NHW, num_classes)
        figures["semseg/miou_objects"] = miou(found_NHW, classes_NHW, num_classes, object_ids)
    return figures


def _under(modality: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{modality}/{name}": float(np.round(value, 6)) for name, value in figures.items()}
