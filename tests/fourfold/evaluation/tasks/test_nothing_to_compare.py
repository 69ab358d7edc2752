"""No figure about nothing: where there is nothing to compare, a metric is absent, in every registered prediction task."""

import warnings
from typing import Any

import numpy as np
import pytest

from fourfold.evaluation.comparison import entries, score_columns
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, TaskContext
from fourfold.evaluation.tasks.dense import score_boxes, score_depth, score_normals
from fourfold.evaluation.tasks.text import score_captions
from fourfold.metrics.dense import edge_statistic, recall_at_k
from fourfold.metrics.statistics import confidence_interval, defined, mean, value
from fourfold.scenes.scoring import caption_statistics
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from tests.fourfold.evaluation.small_scenes import WORDS, Encoder

SIZE, GRID = 16, 4
TASKS = [task for _, task in PREDICTION_TASKS.items()]


def blank(name: str, count: int) -> Any:
    """Return values without content: no surface, no object, no word, no edge, no color."""
    shapes = {"rgb": (SIZE, SIZE, 3), "normal": (SIZE, SIZE, 3), "clip": (GRID, GRID, len(WORDS)), "clip_global": (len(WORDS),)}
    if name == "caption":
        return [""] * count
    if name in ("det", "keypoints"):
        return [{"instances": []}] * count
    if name in ("color_palette", "metadata"):
        return [{}] * count
    if name == "attributes":
        return [{"objects": [{"shape": "cube", "color": "red"}], "main_object": 0}] * count
    dtype = np.float16 if name in ("depth", "clip", "clip_global") else np.uint8
    values = np.zeros((count, *shapes.get(name, (SIZE, SIZE))), dtype)
    return values + CLASS_TABLE.background[0] if name == "semseg" else values


def blank_samples(count: int, exact: bool = True) -> Samples:
    names = {name for task in TASKS for name in (*task.labels, *task.truth, *task.exact_truth)} | {"semseg"}
    labels = {name: blank(name, count) for name in names}
    truth = {name: blank(name, count) for name in names} if exact else labels
    keys = [f"{index:06d}" for index in range(count)]
    return Samples(keys, blank("rgb", count), blank("caption", count), labels, truth, exact, CLASS_TABLE)


def compare(task: Any, context: Any, predicted: Any) -> dict[str, Any]:
    return entries(task.name, score_columns(task, context, None, predicted, 0), 0, replicates=20)


def compared(task: Any, count: int) -> dict[str, Any]:
    context = TaskContext(blank_samples(count), Encoder(), EvaluationConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns about the mean of nothing
        return compare(task, context, blank(task.target, count))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_without_samples_every_metric_is_absent(task):
    assert compared(task, 0) == {}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_blank_predictions_of_blank_samples_agree_about_nothing(task):
    real = {"zero_shot_shape", "zero_shot_color", "miou", "recall_at_1"}  # attributes, background, vectors exist
    assert set(compared(task, 4)) <= real


def test_the_labels_of_a_teacher_are_not_compared_with_themselves():
    for exact in (True, False):
        context = TaskContext(blank_samples(12, exact), Encoder(), EvaluationConfig())
        for name in ("clip", "clip_global"):
            context.samples.labels[name] += 1  # features have a direction
        for task in TASKS:
            if not task.missing(context.samples, context.encoder):
                table = compare(task, context, blank(task.target, 12))
                if not exact and task.truth:
                    assert all(entry["teacher"] is None for entry in table.values()), task.name
                assert all(table[name]["teacher"] is None for name in task.against_teacher), task.name
    task, context = PREDICTION_TASKS.get("rgb->semseg"), TaskContext(blank_samples(4), None)
    table = compare(task, context, blank("semseg", 4))
    assert table["miou"]["teacher"] is not None  # compared with exact truth


def test_some_samples_to_compare_give_the_mean_over_these():
    def scores(predicted: list[str], truth: list[str]) -> dict[str, float]:
        return defined({name: value(score) for name, score in caption_statistics(predicted, truth).items()})

    both = scores(["a cat", "a red box"], ["a dog", "a red box"])
    assert both["exact"] == both["count"] == 1.0 and both["verbatim"] == 0.5
    assert scores(["a cat"], ["a cat"]) == {"verbatim": 1.0}  # captions of photographs
    assert scores(["a red box"], ["a cat"])["exact"] == 0.0
    context = TaskContext(blank_samples(2), None)
    assert value(score_captions(["", "a"], context)["verbatim"]) == 0.0


def test_metrics_without_content_are_undefined():
    empty, blank_maps = np.zeros((0, 8, 8)), np.zeros((2, 8, 8))
    edges = np.eye(8)[None].repeat(2, 0)
    assert np.isnan(value(edge_statistic(empty, empty))) and np.isnan(value(edge_statistic(blank_maps, blank_maps)))
    assert value(edge_statistic(edges, blank_maps)) == value(edge_statistic(blank_maps, edges)) == 0.0
    assert np.isnan(recall_at_k(np.eye(3), np.eye(3), 3)) and recall_at_k(np.eye(3), np.eye(3), 2) == 1.0
    assert np.isnan(value(mean([1.0, 1.0], [False, False]))) and value(mean([1.0, 0.0], [True, False])) == 1.0
    assert confidence_interval(mean([]), 0, "nothing") is None
    assert entries("task", {"value": {"nothing": mean([]), "half": mean([0.0, 1.0])}}, 0, 10).keys() == {"half"}


def test_truth_without_pixels_boxes_or_objects_gives_no_figure():
    context = TaskContext(blank_samples(3), None)
    scores = score_depth(blank("depth", 3), context) | score_normals(blank("normal", 3), context)
    scores |= score_boxes(blank("det", 3), context)
    assert len(scores) == 5 and not defined({name: value(score) for name, score in scores.items()})
