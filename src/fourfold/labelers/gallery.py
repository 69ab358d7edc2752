"""The label gallery: the first images of a split beside everything that the labelers produced for them.

It is written as soon as the labels are complete, so that wrong labels are seen before any training time is spent on them.
"""

# H, W pixels; h, w patches; C channels

import io
import textwrap
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fourfold.data.shards import Sample, ShardSet
from fourfold.modalities import LABELS

CELL = 1.5  # inches
MAX_LINES = 9  # of text in a cell


def label_gallery(shards: ShardSet, labels: ShardSet, split: str, num_samples: int = 6) -> bytes:
    """Draw the first samples of a split, one row each: image, then every label, then the caption.

    Args:
        shards: images and captions.
        labels: what the labelers produced, aligned with `shards`.
        split: e.g. "val".
        num_samples: rows; fewer if the split is smaller.

    Returns:
        The bytes of a PNG. The same samples give the same bytes.
    """
    images = _first(shards, split, num_samples)
    labeled = _first(labels, split, num_samples)
    columns = ["rgb", *(name for name in labels.modalities(split) if name != "rgb")]
    columns += [name for name in ("caption",) if name in images[0]]
    palettes = {name: labels.class_table(split, name).palette for name in columns if LABELS[name].kind == "classes"}
    # Figure without pyplot: no global state, no display.
    figure = Figure(figsize=(CELL * len(columns), CELL * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (image, label) in enumerate(zip(images, labeled, strict=True)):
        sample = {**image, **label}
        for column, name in enumerate(columns):
            ax = axes[row, column]
            ax.set_axis_off()
            if row == 0:
                ax.set_title(name, fontsize=8)
            _draw(ax, name, sample, palettes.get(name))
    buffer = io.BytesIO()
    # The default metadata names the version of matplotlib; without it the bytes depend only on the image.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _first(shards: ShardSet, split: str, count: int) -> list[Sample]:
    return list(islice(shards.iterate(split, shards.modalities(split)), count))


def _draw(ax: Axes, name: str, sample: Sample, palette_256x3: np.ndarray | None) -> None:
    """Draw one value; a kind that has no drawing is shown as text."""
    value, kind = sample[name], LABELS[name].kind
    if kind == "boxes":
        _draw_boxes(ax, sample["rgb"], value["instances"])
    elif kind == "classes" and palette_256x3 is not None:
        ax.imshow(palette_256x3[value])
    elif kind == "palette":
        ax.imshow(np.array(max(value.values(), key=len), np.uint8)[None])
    elif kind in IMAGES:
        ax.imshow(IMAGES[kind](value), cmap="magma_r" if kind == "depth" else "gray", interpolation="nearest")
    else:
        text = value if isinstance(value, str) else _summary(value)
        ax.text(0, 0.5, "\n".join(textwrap.wrap(text, 22)[:MAX_LINES]), fontsize=6, va="center", transform=ax.transAxes)


def _summary(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}, {value.min():.3g} to {value.max():.3g}"
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {content:.3g}" if isinstance(content, float) else f"{key} {content}" for key, content in value.items()
        )
    return str(value)


def _draw_boxes(ax: Axes, rgb_HW3: np.ndarray, instances: list[dict[str, Any]]) -> None:
    height, width = rgb_HW3.shape[:2]
    # Pale, so that the boxes stand out.
    ax.imshow((rgb_HW3 // 2 + 127).astype(np.uint8))
    for instance in instances:
        xmin, ymin, xmax, ymax = instance["box"]
        corner, size = (xmin * width, ymin * height), ((xmax - xmin) * width, (ymax - ymin) * height)
        ax.add_patch(Rectangle(corner, *size, fill=False, linewidth=1, color="tab:red"))
        ax.text(*corner, instance["class_name"], fontsize=5, color="tab:red", va="bottom")


def _principal_colors(features_hwC: np.ndarray) -> np.ndarray:
    """Map features to RGB: the three first principal components of the patches, each scaled to 0 to 1."""
    h, w, channels = features_hwC.shape
    flat = features_hwC.reshape(-1, channels).astype(np.float32)
    flat -= flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    # The sign of a component is arbitrary: make its largest entry positive.
    directions = directions[:3] * np.sign(directions[:3][np.arange(3), np.abs(directions[:3]).argmax(1)])[:, None]
    projected = flat @ directions.T
    span = np.ptp(projected, axis=0)
    return ((projected - projected.min(0)) / np.where(span > 0, span, 1)).reshape(h, w, 3)


# Kind of a label → image that `imshow` takes.
IMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "image": lambda image_HW3: image_HW3,
    "depth": lambda depth_HW: np.log(np.maximum(depth_HW.astype(np.float32), 1e-3)),
    "normals": lambda normal_HW3: normal_HW3,
    "edges": lambda edges_HW: edges_HW,
    "features": _principal_colors,
}
