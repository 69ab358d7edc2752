"""Depth, classes and boxes of one frame of any shape, from one pass of the model, in the geometry of the frame."""

# H W frame, P parts of it that the model sees, S side of its images, L tokens

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fourfold.evaluation.benchmarks.views import NO_CLASS, Part, View, ViewName, merged_classes, merged_values
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.conditions import MISSING, Conditions
from fourfold.generation.sparse_depth import sparse_depth_tokens
from fourfold.labelers.boxes import boxes_of, non_maximum_suppression
from fourfold.seeds import derive_seed

TARGETS = ("depth", "semseg", "det")
MAX_OVERLAP = 0.5  # IoU of two boxes of one class in neighboring windows that are taken for one object
MAX_BOXES = 100
SAME_IDS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class FrameSettings:
    """How frames are answered.

    Attributes:
        targets: labels, of TARGETS.
        view: how a frame becomes square inputs of the model. The inputs of one frame are one batch.
        preset: a name of `fourfold.generation.config.PRESETS`.
        seed: of each frame alike.
    """

    targets: Sequence[str] = TARGETS
    view: ViewName = "squash"
    preset: str = "one_pass"
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.targets) - set(TARGETS)):
            raise ValueError(
                f"Frames cannot be answered with {', '.join(unknown)}; allowed: {', '.join(TARGETS)}. Leave it out."
            )


@dataclass(frozen=True)
class FrameAnswer:
    """The answers about one frame.

    Attributes:
        values: depth in meters float32 (H, W), NaN where the view does not reach; semseg uint8 (H, W), 255 there; det as the
            shards hold it, relative to the frame.
        num_given: tokens of depth that sparse depth gave.
        num_tokens: all tokens of depth, given or not; 0 without sparse depth.
    """

    values: dict[str, Any]
    num_given: int = 0
    num_tokens: int = 0


def predict_frame(
    model: AnyToAny, rgb_HW3: np.ndarray, settings: FrameSettings, sparse_HW: np.ndarray | None = None
) -> FrameAnswer:
    """Return all answers about one frame: the encoder runs once, and with the preset `one_pass` so does the decoder for maps.

    Boxes are text, so their tokens follow one after the other, with the same encoding.

    Args:
        model: the model.
        rgb_HW3: uint8, of any size.
        settings: targets, view and preset.
        sparse_HW: measured depth in meters, 0 where there is none, e.g. of LiDAR, in the geometry of the frame.

    Raises:
        ValueError: the model lacks a label, or sparse depth cannot be used.
    """
    view, size = View(settings.view, model.image_side("rgb")), rgb_HW3.shape[:2]
    known = model.condition_tokens({"rgb": view.inputs(rgb_HW3)})
    given = {} if sparse_HW is None else _sparse(model, view, sparse_HW)
    seeds = [derive_seed(settings.seed, "sample", 0)] * len(known[model.token_name("rgb")])
    found = model.generate(known | given, settings.targets, preset=settings.preset, seeds=seeds, batch_size=len(seeds))
    values = {name: _MERGED[name](size, view.parts(size, answers)) for name, answers in found.items()}
    tokens = next(iter(given.values()), torch.empty(0))
    return FrameAnswer(values, int((tokens != MISSING).sum()), tokens.numel())


def _sparse(model: AnyToAny, view: View, sparse_HW: np.ndarray) -> Conditions:
    """Return the tokens (P, L) of sparse depth for the parts of a frame."""
    parts = [sparse_HW[top : top + h, left : left + w] for top, left, h, w in view.boxes(*sparse_HW.shape)]
    return {model.target_name("depth"): torch.from_numpy(sparse_depth_tokens(model, parts))}


def _depth(size: tuple[int, ...], parts: Sequence[Part]) -> np.ndarray:
    return merged_values(size, parts)[..., 0].astype(np.float32)


def _classes(size: tuple[int, ...], parts: Sequence[Part]) -> np.ndarray:
    """Return the classes; only as many are counted as occur, since the votes need memory for each class and pixel."""
    count = 1 + max((int(value[value != NO_CLASS].max(initial=0)) for _, value, _ in parts), default=0)
    return merged_classes(size, parts, SAME_IDS, count)


def _boxes(size: tuple[int, ...], parts: Sequence[Part]) -> dict[str, Any]:
    """Return the boxes of all parts relative to the frame; of those of one class that overlap, the one with the best score."""
    height, width = size
    rows, names, scores = [], [], []
    for (top, left, h, w), answer, _ in parts:
        for instance in answer["instances"]:
            x0, y0, x1, y1 = instance["box"]
            xs, ys = sorted((left + x0 * w, left + x1 * w)), sorted((top + y0 * h, top + y1 * h))
            rows.append([xs[0] / width, ys[0] / height, xs[1] / width, ys[1] / height])
            names.append(instance["class_name"])
            scores.append(float(instance.get("score", 1.0)))
    kept = range(len(rows)) if len(parts) == 1 else _distinct(np.array(rows).reshape(-1, 4), names, np.array(scores))
    return boxes_of([rows[i] for i in kept], [names[i] for i in kept], [scores[i] for i in kept], MAX_BOXES)


def _distinct(boxes_N4: np.ndarray, names: Sequence[str], scores_N: np.ndarray) -> list[int]:
    """Return the indices of the boxes that remain when each class keeps the best of those that overlap."""
    kept = []
    for name in dict.fromkeys(names):
        mine = np.array([index for index, other in enumerate(names) if other == name])
        kept += mine[non_maximum_suppression(boxes_N4[mine], scores_N[mine], MAX_OVERLAP)].tolist()
    return sorted(kept)


_MERGED = {"depth": _depth, "semseg": _classes, "det": _boxes}
