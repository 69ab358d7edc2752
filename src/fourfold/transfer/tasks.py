"""The transfer tasks, and their examples: made from the images and the exact attributes of the `transfer_*` splits.

`vqa`: a question as text in, the answer as text out. `captioning`: a style of caption that pretraining never saw.
`attributes`: how many objects, and shape, color and texture of the main one, as classes.
"""

# N examples, H height, W width

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet
from fourfold.metrics.statistics import values
from fourfold.scenes.scoring import caption_statistics
from fourfold.scenes.world.vocabulary import COLORS, SHAPES, TEXTURES
from fourfold.seeds import numpy_generator
from fourfold.suggestions import unknown_name

MOST_OBJECTS = 6
CLASSES: dict[str, tuple[Any, ...]] = {
    "count": tuple(range(1, MOST_OBJECTS + 1)),
    "shape": SHAPES,
    "color": COLORS,
    "texture": TEXTURES,
}


@dataclass(frozen=True)
class Examples:
    """N examples of one task, at most one an image.

    `answers` and `prompts` are texts in text tasks and empty in classification, where `classes` holds, per attribute, int64
    (N,) indices into `CLASSES[attribute]`.
    """

    rgb: np.ndarray  # uint8 (N, H, W, 3)
    prompts: list[str]
    answers: list[str]
    classes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rgb)

    def subset(self, indices: np.ndarray) -> "Examples":
        """Return some of the examples."""
        texts = [[column[i] for i in indices] if column else [] for column in (self.prompts, self.answers)]
        return Examples(self.rgb[indices], texts[0], texts[1], {name: column[indices] for name, column in self.classes.items()})


@dataclass(frozen=True)
class Task:
    """What a task asks of an image, and how answers are judged."""

    name: str
    kind: str  # "text" or "classes"
    describe: Callable[[list[dict[str, Any]], int], tuple[list[str], list[str], dict[str, np.ndarray]]]
    score: Callable[[Any, Examples], dict[str, float]]
    selected_by: str  # the metric that chooses the learning rate on `transfer_val`


def task(name: str) -> Task:
    """Return a task by name; raises ValueError that suggests the nearest name."""
    if name not in TASKS:
        raise ValueError(unknown_name("transfer task", name, TASKS, "Add it in fourfold/transfer/tasks.py."))
    return TASKS[name]


def load_examples(which: Task, split: str, shards: ShardSet, truth: ShardSet, most: int, seed: int) -> Examples:
    """Return at most `most` examples of a split, one an image, drawn from `seed`; in the order of the shards.

    Raises ValueError when images and truth are not aligned.
    """
    keys = shards.keys(split)
    if truth.keys(split) != keys:
        raise ValueError(f"Images and truth of {split!r} have different keys. Run ingestion again.")
    chosen = np.sort(numpy_generator(seed, "transfer", split, "chosen").permutation(len(keys))[:most])
    attributes = truth.load_column(split, "attributes")
    prompts, answers, classes = which.describe([attributes[i] for i in chosen], seed)
    return Examples(np.asarray(shards.load_column(split, "rgb"))[chosen], prompts, answers, classes)


def _questions(scenes: list[dict[str, Any]], seed: int) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    """Ask one question of each scene: first its kind is drawn, then the question, so that kinds are even."""
    rng = numpy_generator(seed, "transfer", "questions", len(scenes))
    prompts, answers = [], []
    for scene in scenes:
        kinds = sorted({question["kind"] for question in scene["questions"]})
        kind = kinds[int(rng.integers(len(kinds)))]
        choices = [question for question in scene["questions"] if question["kind"] == kind]
        question = choices[int(rng.integers(len(choices)))]
        prompts.append(question["text"])
        answers.append(question["answer"])
    return prompts, answers, {}


def _captions(scenes: list[dict[str, Any]], seed: int) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    return [""] * len(scenes), [scene["transfer_caption"] for scene in scenes], {}


def _attributes(scenes: list[dict[str, Any]], seed: int) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    main = [scene["objects"][scene["main_object"]] for scene in scenes]
    said: dict[str, list[Any]] = {name: [thing[name] for thing in main] for name in ("shape", "color", "texture")}
    said["count"] = [min(len(scene["objects"]), MOST_OBJECTS) for scene in scenes]
    return [], [], {name: np.array([names.index(v) for v in said[name]]) for name, names in CLASSES.items()}


def _answer_accuracy(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    return {"accuracy": float(np.mean([p.strip() == a for p, a in zip(predicted, examples.answers, strict=True)]))}


def _caption_scores(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    return values(caption_statistics(predicted, examples.answers))


def _class_accuracies(predicted: dict[str, np.ndarray], examples: Examples) -> dict[str, float]:
    each = {f"{name}_accuracy": float(np.mean(predicted[name] == column)) for name, column in examples.classes.items()}
    return {**each, "mean_accuracy": float(np.mean(list(each.values())))}


TASKS = {
    entry.name: entry
    for entry in (
        Task("vqa", "text", _questions, _answer_accuracy, "accuracy"),
        Task("captioning", "text", _captions, _caption_scores, "pair_f1"),
        Task("attributes", "classes", _attributes, _class_accuracies, "mean_accuracy"),
    )
}
