"""No figure about nothing in transfer, tokenizer and teacher metrics; prediction tasks have their own test.

Tasks and labels are taken from their registries, so a new one is tested here without an edit.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fourfold.labelers.measures import measure_teachers
from fourfold.metrics.statistics import defined
from fourfold.modalities import LABELS, SOURCE_LABELS
from fourfold.plugins import load_plugins
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from fourfold.tokenizers import measures
from fourfold.transfer.tasks import TRANSFER_TASKS, Examples

load_plugins(["fourfold.scenes"])
TASKS = [task for _, task in TRANSFER_TASKS.items()]
SIZE, CHANNELS = 8, 4
DENSE = [name for name, label in LABELS.items() if label.extension in ("png", "npy") and name != "t5_caption"]
# of blank values that exist: equal images, equal pixels of background, equal numbers
EXISTING = {"psnr", "miou", "mae"}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns about the mean of nothing
        yield


def blank(name: str, count: int) -> np.ndarray:
    """Return values of a dense label without content: zeros, or background."""
    entry = LABELS[name]
    shape = {"vector": (CHANNELS,), "features": (2, 2, CHANNELS)}.get(entry.kind, (SIZE, SIZE))
    shape += (3,) if entry.kind in ("image", "normals") else ()
    values = np.zeros((count, *shape), entry.dtype)
    return values + CLASS_TABLE.background[0] if entry.kind == "classes" else values


def examples(task: Any, count: int) -> Examples:
    classes = {name: np.zeros(count, np.int64) for name in task.choices}
    return Examples(np.zeros((count, SIZE, SIZE, 3), np.uint8), [""] * count, [] if classes else [""] * count, classes)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_transfer_without_examples_has_no_metric(task):
    predicted = {name: np.zeros(0, np.int64) for name in task.choices} or []
    assert defined(task.score(predicted, examples(task, 0))) == {}


@pytest.mark.parametrize("task", [task for task in TASKS if task.kind == "text"], ids=lambda task: task.name)
def test_transfer_does_not_count_examples_without_an_answer(task):
    assert defined(task.score(["", " "], examples(task, 2))) == {}
    assert set(defined(task.score(["x", "a red box"], examples(task, 2))).values()) <= {0.0}


@pytest.mark.parametrize("name", DENSE)
def test_tokenizers_without_samples_have_no_metric(name):
    segmentation = measures.Segmentation(blank("semseg", 0), CLASS_TABLE)
    assert defined(measures._measure(name, blank(name, 0), blank(name, 0), segmentation)) == {}
    assert measures.codebook_metrics(np.zeros((0, 4), np.int64), 16) == {}


@pytest.mark.parametrize("name", DENSE)
def test_tokenizers_of_blank_samples_agree_about_nothing(name):
    segmentation = measures.Segmentation(blank("semseg", 2), CLASS_TABLE)
    assert set(defined(measures._measure(name, blank(name, 2), blank(name, 2), segmentation))) <= EXISTING


@pytest.mark.parametrize("count", [0, 1, 3])
def test_teachers_of_blank_samples_have_no_metric(count):
    class Blank:
        def splits(self):
            return ["annotated"]

        def modalities(self, split):
            return sorted({*LABELS} - {*SOURCE_LABELS})

        def class_table(self, split):
            return CLASS_TABLE

        def load_column(self, split, name):
            return [{"instances": []}] * count if name == "det" else blank(name, count)

    teachers: Any = SimpleNamespace(config=SimpleNamespace(measured_splits=("annotated",)), labelers=list)
    assert set(measure_teachers(teachers, Blank(), Blank(), Blank())) == ({"semseg/miou"} if count else set())
