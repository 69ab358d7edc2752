"""The label gallery: the first images of a split beside everything that the labelers produced for them.

It is written as soon as the labels are complete, so that wrong labels are seen before any training time is spent on them.
"""

import io
import textwrap
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fourfold.data.missing import Missing
from fourfold.data.shards import Sample, ShardSet
from fourfold.images import Drawing, draw
from fourfold.modalities import LABELS, SOURCE_LABELS

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
    samples = [
        {**image, **label}
        for image, label in zip(_first(shards, split, num_samples), _first(labels, split, num_samples), strict=True)
    ]
    columns = ["rgb", *(name for name in labels.modalities(split) if name not in SOURCE_LABELS)]
    columns += [name for name in ("caption",) if name in samples[0]]
    table = next((labels.class_table(split, name) for name in columns if LABELS[name].kind == "classes"), None)
    # One scale for all rows, fitted to them: indoors and outdoors differ by orders of magnitude.
    depths = [sample[name] for sample in samples for name in columns if LABELS[name].kind == "depth"]
    depths = [depth_HW for depth_HW in depths if not isinstance(depth_HW, Missing)]
    ends = (float(min(map(np.min, depths))), float(max(map(np.max, depths)))) if depths else (1.0, 1.0)
    depth_range = (ends[0], max(ends[1], 1.01 * ends[0]))  # a constant depth would have no scale
    # Figure without pyplot: no global state, no display.
    figure = Figure(figsize=(CELL * len(columns), CELL * len(samples) + 0.3), layout="constrained")
    axes = figure.subplots(len(samples), len(columns), squeeze=False)
    for row, sample in zip(axes, samples, strict=True):
        drawing = Drawing(sample["rgb"], table, depth_range=depth_range)
        for ax, name in zip(row, columns, strict=True):
            ax.set_axis_off()
            image = None if isinstance(sample[name], Missing) else draw(name, sample[name], drawing)
            if image is None:
                text = "\n".join(textwrap.wrap(_summary(sample[name]), 22)[:MAX_LINES])
                ax.text(0, 0.5, text, fontsize=6, va="center", transform=ax.transAxes)
            else:
                ax.imshow(image, interpolation="nearest")
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=8)
    buffer = io.BytesIO()
    # The default metadata names the version of matplotlib; without it the bytes depend only on the image.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _first(shards: ShardSet, split: str, count: int) -> list[Sample]:
    return list(islice(shards.iterate(split, shards.modalities(split)), count))


def _summary(value: Any) -> str:
    """Return a value that has no drawing as text."""
    if isinstance(value, Missing):
        return f"missing: {value.reason}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}, {value.min():.3g} to {value.max():.3g}"
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {content:.3g}" if isinstance(content, float) else f"{key} {content}" for key, content in value.items()
        )
    return str(value)
