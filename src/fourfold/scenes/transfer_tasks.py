"""Transfer tasks on the exact attributes of the scenes: questions, captions of another style, count and attributes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import mean, value, values
from fourfold.scenes.scoring import CAPTION_METRICS, caption_statistics, main_objects
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.vocabulary import CLASS_NAMES, COLORS, OBJECT_CLASSES, SHAPES, TEXTURES
from fourfold.seeds import numpy_generator
from fourfold.transfer.heads.dense import DepthHead
from fourfold.transfer.label_tasks import box_task, depth_task, segmentation_task
from fourfold.transfer.tasks import Examples, Targets, TransferTask, class_accuracies

MAX_OBJECTS = 6
CHOICES: dict[str, tuple[Any, ...]] = {
    "count": tuple(range(1, MAX_OBJECTS + 1)),
    "shape": SHAPES,
    "color": COLORS,
    "texture": TEXTURES,
}
Scenes = list[dict[str, Any]]  # the attributes of each scene, as `fourfold.scenes.world.writing` stores them


def _questions(scenes: Scenes, seed: int) -> Targets:
    """Ask one question about each scene: its kind is drawn first, so that all kinds are equally frequent."""
    rng = numpy_generator(seed, "transfer", "questions", len(scenes))
    prompts, answers = [], []
    for scene in scenes:
        kinds = sorted({question["kind"] for question in scene["questions"]})
        kind = kinds[int(rng.integers(len(kinds)))]
        choices = [question for question in scene["questions"] if question["kind"] == kind]
        question = choices[int(rng.integers(len(choices)))]
        prompts.append(question["text"])
        answers.append(question["answer"])
    return Targets(prompts, answers)


def _captions(scenes: Scenes, seed: int) -> Targets:
    return Targets([""] * len(scenes), [scene["transfer_caption"] for scene in scenes])


def _attributes(scenes: Scenes, seed: int) -> Targets:
    columns: dict[str, list[Any]] = dict(main_objects(scenes, ("shape", "color", "texture")))
    columns["count"] = [min(len(scene["objects"]), MAX_OBJECTS) for scene in scenes]
    return Targets(classes={name: np.array([names.index(v) for v in columns[name]]) for name, names in CHOICES.items()})


def _answer_accuracy(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    is_right = [p.strip() == a for p, a in zip(predicted, examples.answers, strict=True)]
    return {"accuracy": value(mean(is_right, [bool(answer) for answer in examples.answers]))}


def _caption_metrics(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    return values(caption_statistics(predicted, examples.answers))


SCENE_TRANSFER_TASKS = (
    TransferTask(
        name="vqa",
        title="Visual questions",
        metrics=(Metric("accuracy", "accuracy", "share of right answers"),),
        make_targets=_questions,
        score=_answer_accuracy,
    ),
    TransferTask(
        name="captioning",
        title="Captions of another style",
        metrics=CAPTION_METRICS,
        make_targets=_captions,
        score=_caption_metrics,
    ),
    TransferTask(
        name="attributes",
        title="Count and attributes",
        metrics=(
            Metric("mean_accuracy", "mean accuracy", "mean of the accuracies of all attributes"),
            Metric("count_accuracy", "count", "accuracy of the number of objects"),
            Metric("shape_accuracy", "shape", "accuracy of the main object's shape"),
            Metric("color_accuracy", "color", "accuracy of the main object's color"),
            Metric("texture_accuracy", "texture", "accuracy of the main object's texture"),
        ),
        make_targets=_attributes,
        score=class_accuracies,
        choices=CHOICES,
    ),
    segmentation_task("segmentation", "Segmentation", len(CLASS_NAMES)),
    depth_task("depth", "Depth", DepthHead(max_depth=ScenesConfig().far)),  # the sky has no depth
    box_task("detection", "Boxes", OBJECT_CLASSES),
)
