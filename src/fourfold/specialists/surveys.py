"""What networks must know of their training data, and of what is installed."""

import numpy as np

from fourfold.labelers.extras import require_package
from fourfold.specialists.protocol import Facts, LabeledImages

SURVEYED = 500  # images on which depth is measured


def survey_classes(data: LabeledImages) -> Facts:
    """Return the class table of a segmentation; raises ValueError when its labels have none."""
    if data.class_table is None:
        raise ValueError("The labels 'semseg' have no class table. The labeler must declare one; then label the images again.")
    return {"class_table": data.class_table.model_dump(mode="json")}


def positive_depths(data: LabeledImages) -> np.ndarray:
    """Return the depths of the pixels of some images that have one, float32; raises ValueError when none has.

    Values that are not finite and positive are no depth.
    """
    depth_N = np.asarray(data.values[:SURVEYED], np.float32).ravel()
    depth_N = depth_N[np.isfinite(depth_N) & (depth_N > 0)]
    if not len(depth_N):
        raise ValueError("No pixel of the labels 'depth' is positive. Choose another labeler for depth, and label again.")
    return depth_N


def survey_boxes(data: LabeledImages) -> Facts:
    """Return the object classes of the class table and of the labels, and the shorter side of the images.

    Raises:
        ValueError: no object class is known.
    """
    declared = data.class_table.thing_names if data.class_table is not None else ()
    found = {instance["class_name"] for value in data.values for instance in value["instances"]}
    names = [*declared, *sorted(found - set(declared))]
    if not names:
        raise ValueError("No image has a box. Choose another labeler for 'det', or leave detectors out of specialists.models.")
    return {"classes": names, "side": min(data.rgb.shape[1:3])}


def require_torchvision() -> None:
    """Raise ValueError when torchvision is not installed."""
    require_package("torchvision", "hub")
