"""Prediction tasks that need the scenes' vocabulary or their exact attributes."""

# N samples, H height, W width, K choices, A attributes

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext
from fourfold.evaluation.tasks.dense import class_table, most_frequent_class
from fourfold.evaluation.tasks.features import choice_similarities, text_classifier
from fourfold.metrics.dense import accuracy_statistic
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, value
from fourfold.modalities.class_table import ClassTable
from fourfold.scenes.scoring import CAPTION_METRICS, caption_statistics, described_shapes, main_objects, set_f1
from fourfold.scenes.world.vocabulary import COLORS, SHAPES, SIZES

CHOICES = {"shape": SHAPES, "color": COLORS}  # attributes of the main object that texts can tell apart
MAX_CANDIDATES = 200  # captions that are tried as the one answer for all images


def best_caption(captions: Sequence[str]) -> str:
    """Return the caption with the highest pair F1 if it is the answer for every image."""
    captions = captions[:MAX_CANDIDATES]
    return max(captions, key=lambda text: value(caption_statistics([text] * len(captions), captions)["pair_f1"]))


def score_shapes(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `shape_f1` of class ids uint8 (N, H, W): the shapes that are shown against those that the caption names."""
    table, share = class_table(context.samples), context.config.min_shown_share
    shown = [shown_shapes(classes, table, share) for classes in predicted]
    return {"shape_f1": set_f1(shown, [described_shapes(text) for text in context.samples.captions])}


def shown_shapes(classes_HW: np.ndarray, table: ClassTable, min_share: float) -> set[str]:
    """Return the shapes that cover at least a share of a class map."""
    counts = np.bincount(classes_HW.ravel(), minlength=table.num_classes)
    ids = [table.id_of(shape) for shape in SHAPES]
    return {table.names[i] for i in ids if counts[i] > 0 and counts[i] >= min_share * classes_HW.size}


def best_shape_map(fitted: Samples) -> np.ndarray:
    """Return the class map uint8 (H, W) that shows the set of shapes with the highest F1, as blocks side by side."""
    table = class_table(fitted)
    background_HW = most_frequent_class(fitted.truth["semseg"], table.num_classes)
    classes_HW = np.where(np.isin(background_HW, table.things), table.id_of("ground"), background_HW).astype(np.uint8)
    height, width = classes_HW.shape[0] // 2, classes_HW.shape[1] // len(SHAPES)
    for index, shape in enumerate(sorted(best_shapes(fitted.captions))):
        classes_HW[height:, index * width : (index + 1) * width] = table.id_of(shape)
    return classes_HW


def best_shapes(captions: Sequence[str]) -> set[str]:
    """Return the set of shapes with the highest F1 if it is the answer for every image."""
    truth = [described_shapes(text) for text in captions]
    named = sorted(set().union(*truth))
    choices = [set(c) for size in range(1, len(named) + 1) for c in combinations(named, size)]
    return max(choices, key=lambda shapes: value(set_f1([shapes] * len(truth), truth)), default=set())


def prompts(attribute: str, choice: str) -> list[str]:
    """Return texts that name `choice`, with every combination of the other attributes."""
    if attribute == "shape":
        return [f"a {size} {color} {choice}" for size in SIZES for color in COLORS]
    return [f"a {size} {choice} {shape}" for size in SIZES for shape in SHAPES]


def choose_by_text(features: np.ndarray, context: TaskContext) -> np.ndarray:
    """Return the value of each attribute whose texts are nearest to CLIP features (N, h, w, C), str (N, A)."""
    encoder = context.text_encoder
    pooled_NC, columns = encoder.pool(features), []
    for attribute, choices in CHOICES.items():
        classifier_KC = text_classifier(encoder, [prompts(attribute, choice) for choice in choices])
        columns.append(np.array(choices)[choice_similarities(pooled_NC, classifier_KC).argmax(axis=1)])
    return np.stack(columns, axis=1)


def score_choices(chosen_NA: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return the accuracy of each attribute of the main object."""
    truth = main_objects(context.samples.truth["attributes"], tuple(CHOICES))
    return {
        f"zero_shot_{name}": accuracy_statistic(chosen_NA[:, column], np.array(truth[name]))
        for column, name in enumerate(CHOICES)
    }


def most_frequent_choices(fitted: Samples) -> np.ndarray:
    """Return the most frequent value of each attribute, str (A,)."""
    answers = []
    for column in main_objects(fitted.truth["attributes"], tuple(CHOICES)).values():
        choices, counts = np.unique(np.array(column), return_counts=True)
        answers.append(choices[counts.argmax()])
    return np.array(answers)


SCENE_TASKS = (
    PredictionTask(
        source="rgb",
        target="caption",
        variant="scenes",
        replaces=("rgb->caption",),
        random_stream="rgb->caption",
        metrics=CAPTION_METRICS,
        score=lambda predicted, context: caption_statistics(predicted, context.samples.captions),
        trivial=lambda fitted: best_caption(fitted.captions),
        exact_truth=("attributes",),
        headline=True,
    ),
    PredictionTask(
        source="caption",
        target="semseg",
        metrics=(Metric("shape_f1", "shape F1", "F1 of the shapes that are shown, against those in the caption"),),
        score=score_shapes,
        trivial=best_shape_map,
        teacher=lambda context: context.samples.labels.get("semseg"),  # of the real image
        truth=("semseg",),
        exact_truth=("attributes",),
        gallery_title="segmentation",
    ),
    PredictionTask(
        source="rgb",
        target="clip",
        variant="zero_shot",
        metrics=(
            Metric("zero_shot_shape", "zero-shot shape", "accuracy of the main object's shape, against text embeddings"),
            Metric("zero_shot_color", "zero-shot color", "accuracy of the main object's color, against text embeddings"),
        ),
        interpret=choose_by_text,
        score=score_choices,
        trivial=most_frequent_choices,
        teacher=lambda context: context.samples.labels["clip"],
        labels=("clip",),
        exact_truth=("attributes",),
        needs_encoder=True,
    ),
)
