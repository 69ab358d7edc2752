"""Transfer tasks on annotations of the source: which are skipped and why, and what the others learn from."""

from dataclasses import replace

import numpy as np
import pytest

from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.modalities.class_table import ClassTable
from fourfold.training.run_context import RunContext
from fourfold.transfer.arms import PretrainedModel
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.head_sizes import DenseHeadConfig, HeadsConfig
from fourfold.transfer.tasks import TransferData, load_examples, num_examples, select_tasks
from tests.fourfold.transfer.tiny_model import tiny_model, tiny_text

NAMES = ("classification", "questions", "second_captions")
COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


def write_split(root, split, notes):
    """One image of 32 pixels for each annotation: of the color that its category names, with the index in a corner."""
    images = []
    for index, note in enumerate(notes):
        image = np.full((32, 32, 3), COLORS.get(note.get("category", ""), (9, 9, 9)), np.uint8)
        image[0, 0] = index
        images.append(image)
    keys = [f"{split}-{index}" for index in range(len(notes))]
    values = {"rgb": images, ANNOTATIONS: notes}
    write_columns(root, split, shard_name(0), {name: zip(keys, column, strict=True) for name, column in values.items()})
    finish_split(root, split, list(values))


def data_of(root, **notes) -> TransferData:
    for split in ("train", "val", "test"):
        write_split(root / "shards", split, notes.get(split, notes["every"]))
    (root / "truth").mkdir()
    return TransferData(ShardSet(root / "shards"), ShardSet(root / "truth"))


def test_tasks_without_annotations_are_skipped_with_what_to_give(tmp_path):
    data = data_of(tmp_path, every=[{}, {}])
    tasks, skipped = select_tasks([*NAMES, "vqa"], data)
    assert not tasks and skipped["classification"].startswith("the source has none; give a folder for each class")
    assert skipped["vqa"] == "the source has no split 'transfer_train' with exact truth"
    assert "`question` and `answer`" in skipped["questions"] and "`second_caption`" in skipped["second_captions"]


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        ({"every": [{"category": "red"}] * 4}, r"two classes with 2 images of train each, and there are 1"),
        ({"every": [{"category": "red"}] * 4, "test": [{}]}, r"each split needs 2 annotated images, and test has 0"),
    ],
)
def test_too_few_annotations_are_a_reason(tmp_path, notes, reason):
    _, skipped = select_tasks(["classification"], data_of(tmp_path, **notes))
    assert reason in skipped["classification"]


def test_classes_are_those_of_train_and_other_images_are_left_out(tmp_path):
    notes = [{"category": name} for name in ("red", "green", "rare", "red", "green")] + [{}]
    data = data_of(tmp_path, every=notes)
    tasks, _ = select_tasks(["classification"], data)
    task = tasks["classification"]
    assert task.choices == {"category": ("green", "red")} and num_examples(task, data, "transfer_train") == 4
    examples = load_examples(task, data, "transfer_test", 10, 0)
    assert [tuple(image[1, 1]) for image in examples.rgb] == [COLORS["red"], COLORS["green"]] * 2
    assert examples.classes["category"].tolist() == [1, 0, 1, 0]
    few = load_examples(task, data, "transfer_test", 3, 0)
    shown = [COLORS[task.choices["category"][c]] for c in few.classes["category"]]
    assert len(few) == 3 and [tuple(image[1, 1]) for image in few.rgb] == shown


def test_questions_and_second_captions_belong_to_their_image(tmp_path):
    notes = [{"questions": [[f"which {n}?", str(n)], [f"what {n}?", str(n)]], "captions": [f"second {n}"]} for n in range(6)]
    data = data_of(tmp_path, every=[{}, *notes])
    tasks, _ = select_tasks(NAMES, data)
    assert set(tasks) == {"questions", "second_captions"}
    asked = load_examples(tasks["questions"], data, "transfer_val", 10, 0)
    numbers = [int(image[0, 0, 0]) - 1 for image in asked.rgb]
    assert asked.answers == [str(n) for n in numbers] == [prompt.split()[1][:-1] for prompt in asked.prompts]
    captioned = load_examples(tasks["second_captions"], data, "transfer_train", 10, 0)
    assert captioned.answers == [f"second {n}" for n in range(6)] and captioned.prompts == [""] * 6
    assert tasks["questions"].score(["0", " 1 ", "3"], asked.subset(np.array([0, 1, 2])))["accuracy"] == pytest.approx(2 / 3)


def test_the_comparison_takes_as_many_labels_as_there_are(tmp_path):
    data, text = data_of(tmp_path, every=[{"category": name} for name in COLORS] * 4), tiny_text()
    config = TransferConfig(
        tasks=("classification", "questions"), num_labels=(6, 500), num_seeds=1, steps=1, batch_size=4, num_test=10
    )
    found = finetune(PretrainedModel(tiny_model(text), text, "tiny"), data, config, RunContext(0, tmp_path / "runs"))
    assert set(found["transfer"]) == {"classification_6", "classification_12"}
    assert set(found["skipped"]) == {"questions"} and found["tasks"]["classification"]["title"] == "Classes of the source"
    config = TransferConfig(tasks=("questions",))
    nothing = finetune(PretrainedModel(tiny_model(text), text, "tiny"), data, config, RunContext(0, tmp_path / "no"))
    assert nothing["transfer"] == {} and nothing["examples"] == []


def labeled_data(root, origin, lacks=()) -> TransferData:
    """Images of two halves, with the class of each half, its depth and a box around the right one as labels.

    `lacks` are the images of each split that lack a segmentation.
    """
    table = ClassTable(names=("left", "right", "nothing"), ignored=(2,))
    for split in ("train", "val", "test"):
        write_split(root / "shards", split, [{}] * 5)
        maps = [np.repeat(np.array([[0, 1], [2, 1]], np.uint8), 16, axis=0).repeat(16, axis=1) for _ in range(5)]
        marked = [Missing("no mask") if index in lacks else one for index, one in enumerate(maps)]
        boxes = [{"instances": [{"box": [0.5, 0.0, 1.0, 1.0], "class_name": "right", "score": 1.0}]} for _ in range(5)]
        values = {"semseg": marked, "depth": [np.float16(one) + 1 for one in maps], "det": boxes}
        keys = [f"{split}-{index}" for index in range(5)]
        columns = {name: list(zip(keys, column, strict=True)) for name, column in values.items()}
        write_columns(root / "labels", split, shard_name(0), columns)
        tables = {"semseg": table, "det": ClassTable(names=("right",), things=(0,))}
        finish_split(root / "labels", split, list(values), class_tables=tables, origins=dict.fromkeys(values, origin))
    (root / "truth").mkdir()
    return TransferData(ShardSet(root / "shards"), ShardSet(root / "truth"), ShardSet(root / "labels"))


LABELED = ("labeled_segmentation", "labeled_depth", "labeled_detection")


def test_labels_of_the_data_are_learned(tmp_path):
    data = labeled_data(tmp_path, {"kind": "precomputed", "model": "masks"})
    tasks, skipped = select_tasks(LABELED, data)
    assert set(tasks) == set(LABELED) and not skipped
    examples = load_examples(tasks["labeled_segmentation"], data, "transfer_train", 3, 0)
    assert len(examples) == len(examples.labels) == 3 and num_examples(tasks["labeled_depth"], data, "transfer_test") == 5
    assert set(np.unique(examples.labels[0])) == {0, 1, 255}  # the ignored class does not count
    perfect = [np.where(one == 255, 0, one) for one in examples.labels]
    assert tasks["labeled_segmentation"].score(perfect, examples) == {"miou": 1.0}
    boxes = load_examples(tasks["labeled_detection"], data, "transfer_val", 10, 0)
    assert tasks["labeled_detection"].score(boxes.labels, boxes)["ap50"] == 1.0
    text = tiny_text()
    heads = HeadsConfig(dense=DenseHeadConfig(width=8, depth=0))
    config = TransferConfig(tasks=LABELED[:2], num_labels=(4, 50), num_seeds=1, steps=1, batch_size=4, heads=heads, num_test=10)
    found = finetune(PretrainedModel(tiny_model(text), text, "tiny"), data, config, RunContext(0, tmp_path / "runs"))
    assert {name for name in found["transfer"] if "depth" in name} == {"labeled_depth_4", "labeled_depth_5"}


def test_images_that_lack_a_label_are_left_out(tmp_path):
    data = labeled_data(tmp_path / "some", {"kind": "precomputed"}, lacks=(0, 3))
    tasks, _ = select_tasks(LABELED, data)
    task = tasks["labeled_segmentation"]
    assert num_examples(task, data, "transfer_train") == 3 and num_examples(tasks["labeled_depth"], data, "transfer_train") == 5
    for count in (2, 10):
        examples = load_examples(task, data, "transfer_train", count, 0)
        assert len(examples) == len(examples.labels) == min(count, 3)
        assert {int(image[0, 0, 0]) for image in examples.rgb} <= {1, 2, 4}
    nothing = labeled_data(tmp_path / "none", {"kind": "precomputed"}, lacks=range(5))
    assert "'train' has no image with a label of 'semseg'" in select_tasks(LABELED, nothing)[1]["labeled_segmentation"]


def test_labels_of_a_teacher_are_no_labels_of_the_data(tmp_path):
    data = labeled_data(tmp_path, {"kind": "transformers", "model": "a/teacher"})
    _, skipped = select_tasks([*LABELED, "labeled_depth"], data)
    assert set(skipped) == set(LABELED) and "those of a teacher, which pretraining has learned" in skipped["labeled_depth"]
    _, skipped = select_tasks(LABELED, replace(data, labels=None))
    assert skipped["labeled_segmentation"].startswith("there are no labels; set pseudo_labeling.labelers.semseg to {kind:")
