"""The worst predictions: of every input → target pair, the samples on which its main metric is worst."""

# N samples, B samples of a block

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from fourfold import images
from fourfold.evaluation.error_maps import comparable, counted_pixels, error_map
from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext
from fourfold.images import Drawing
from fourfold.metrics.metric import find_metric
from fourfold.metrics.statistics import Statistic, SumStatistic

CASES = 6  # of each pair
MAX_SIDE = 192  # pixels; larger images are reduced, so that the page stays small
BLOCK = 256  # samples that are scored at once: memory grows with the product of block and samples
Cell = dict[str, str]  # {"title"} with "image", a data URL, or "text"


class WorstCases:
    """Collects the worst samples of each pair as JSON values: the report shows them, and anyone can read them."""

    def __init__(self, count: int = CASES) -> None:
        self._count = count
        self.by_pair: dict[str, dict[str, Any]] = {}

    def find(
        self,
        task: PredictionTask,
        context: TaskContext,
        predicted: Any,
        columns: Mapping[str, Mapping[str, Statistic]],
    ) -> dict[str, Any]:
        """Return the worst samples of a task by its main metric, the worst first; {} if the metric counts no sample.

        Args:
            task: the task.
            context: the scored samples.
            predicted: the predictions for all samples.
            columns: as `comparison.score_columns` returns them.
        """
        name = next((name for name in columns["value"] if task.metrics[0].describes(name)), "")
        if not name:
            return {}
        scores_N = each_alone(columns["value"][name])
        is_lower = find_metric(task.metrics, name).lower_is_better
        order = np.argsort(-scores_N if is_lower else scores_N, kind="stable")  # undefined ones are last
        chosen = [int(index) for index in order[: self._count] if np.isfinite(scores_N[index])]
        tied = int((scores_N == scores_N[chosen[-1]]).sum()) if chosen else 0
        scored = comparable(task.target, predicted, context.samples, context.relative_depth)
        cases = _drawn(task, context.samples, scored, chosen)
        shown = [{"key": context.samples.keys[i], "score": round(float(scores_N[i]), 6), "cells": cases[i]} for i in chosen]
        return {"metric": name, "cases": shown, "as_bad_as_the_last": tied} if chosen else {}

    def add(self, task: PredictionTask, found: dict[str, Any]) -> None:
        """Keep what `find` returned for a task; of several tasks of one pair, the first counts."""
        if found:
            self.by_pair.setdefault(task.pair, found)


def each_alone(statistic: Statistic) -> np.ndarray:
    """Return the metric of each sample alone, float64 (N,); NaN where a sample has nothing to compare."""
    if isinstance(statistic, SumStatistic):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(statistic.formula(statistic.sums), np.float64)
    count = statistic.num_samples
    blocks = []
    for start in range(0, count, BLOCK):
        weights_BN = np.zeros((min(BLOCK, count - start), count))
        weights_BN[np.arange(len(weights_BN)), start + np.arange(len(weights_BN))] = 1
        blocks.append(statistic.weighted(weights_BN))
    return np.concatenate(blocks) if blocks else np.zeros(0)


def reference_of(samples: Samples, name: str, index: int) -> tuple[str, Any]:
    """Return what a prediction of a label is shown beside: its title and value; the value is None if there is nothing."""
    if name == "rgb":
        return "real image", samples.rgb[index]
    if name == "caption":
        return "caption", samples.captions[index]
    if name in samples.truth_only:
        return "truth", samples.truth_only[name][index]
    return "teacher", samples.labels[name][index] if name in samples.labels else None


def _drawn(task: PredictionTask, samples: Samples, predicted: Any, chosen: list[int]) -> dict[int, list[Cell]]:
    features = samples.labels[task.target][chosen] if _is_features(task.target, samples) else None
    shared = Drawing(None, samples.class_table, features, samples.rgb.shape[1])
    return {index: _cells(task, samples, predicted[index], index, shared) for index in chosen}


def _cells(task: PredictionTask, samples: Samples, answer: Any, index: int, shared: Drawing) -> list[Cell]:
    """Return what is shown of one sample: input, prediction, reference, and the error where it has pixels."""
    drawing = replace(shared, rgb=samples.rgb[index])
    given = samples.rgb[index] if task.source == "rgb" else samples.captions[index]
    title, reference = reference_of(samples, task.target, index)
    cells = [_cell("input", task.source, given, drawing), _cell("prediction", task.target, answer, drawing, task)]
    if reference is not None:
        cells.append(_cell(title, task.target, reference, drawing, task))
    if task.source == "rgb" and isinstance(answer, np.ndarray) and isinstance(reference, np.ndarray):
        error = error_map(task.target, answer, reference, counted_pixels(task.target, samples, index))
        cells += [] if error is None else [{"title": "error", "image": _url(error)}]
    return cells


def _cell(title: str, name: str, value: Any, drawing: Drawing, task: PredictionTask | None = None) -> Cell:
    if isinstance(value, str):
        return {"title": title, "text": value or "(nothing)"}
    paint = task.draw if task is not None else None
    image = paint(value) if paint is not None else images.draw(name, value, drawing)
    return {"title": title, "text": str(value)} if image is None else {"title": title, "image": _url(image)}


def _url(image: np.ndarray) -> str:
    """Return an image as a data URL, reduced to `MAX_SIDE` pixels."""
    if max(image.shape[:2]) > MAX_SIDE:
        scale = MAX_SIDE / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return images.data_url(image)


def _is_features(name: str, samples: Samples) -> bool:
    values = samples.labels.get(name)
    return isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 4
