"""Fine-tuning on public benchmarks: tiny sets in their official layouts are learned, and scored as the benchmarks."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fourfold.data.cursor import Cursor, index_batches
from fourfold.evaluation.benchmarks.object_measures import Question
from fourfold.evaluation.report.transfer_tables import transfer_tables
from fourfold.plugins import load_plugins
from fourfold.training.run_context import RunContext
from fourfold.transfer.benchmark_settings import TrainedBenchmarkConfig
from fourfold.transfer.benchmarks.answers import AnswerVocabulary
from fourfold.transfer.benchmarks.streaming import random_box
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.learners import answer_loss
from fourfold.transfer.tasks import TRANSFER_TASKS, TransferData, select_tasks
from tests.fourfold.transfer import benchmark_sets
from tests.fourfold.transfer.benchmark_sets import WNIDS

pytestmark = pytest.mark.numeric
MAKE = {
    "imagenet": benchmark_sets.imagenet,
    "vqav2": benchmark_sets.vqa,
    "gqa": benchmark_sets.gqa,
    "voc2012_semseg": benchmark_sets.voc,
}
RATES = {"pretrained": (0.8,), "scratch": (1.0,), "baseline": (3.0,)}
ARMS = set(RATES)


@pytest.fixture(autouse=True)
def plugin():
    load_plugins(["fourfold.transfer.benchmarks"])  # tests/conftest.py forgets it


def settings(name, root, steps=40, rates=RATES, **others):
    return TransferConfig(
        tasks=(name,), num_labels=(1000,), num_seeds=1, steps=steps, batch_size=8, precision="fp32", lr_multipliers=rates,
        heads={"dense": {"width": 16, "depth": 1}}, benchmarks={name: {"path": root, "held_out": 3, **others}},
    )  # fmt: skip


def compare(pretrained, world, config, folder):
    return finetune(pretrained, replace(world, benchmarks=config.benchmarks), config, RunContext(0, folder))


def opened(name, root, **others):
    """Return a task with its data, and the examples that may be learned."""
    config = settings(name, root, **others)
    tasks, _ = select_tasks([name], TransferData(None, None, benchmarks=config.benchmarks))
    return tasks[name], tasks[name].stream.pool(tasks[name], 32, 0)


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def means(found, table, metric):
    assert set(found["transfer"][table][metric]) == ARMS
    return {arm: score["mean"] for arm, score in found["transfer"][table][metric].items()}


def test_imagenet_is_learned_and_scored_as_the_server_does(pretrained, world, tmp_path):
    root = benchmark_sets.imagenet(tmp_path / "set", val=2)
    found = compare(pretrained, world, settings("imagenet", root), tmp_path / "runs")
    top_1 = means(found, "imagenet_27", "top_1")  # 30 images of which 3 are held out
    assert min(top_1.values()) > 0.6  # of three equally frequent classes
    with (root / "LOC_val_solution.csv").open() as file:
        truth = {row["ImageId"]: WNIDS.index(row["PredictionString"].split()[0]) + 1 for row in csv.DictReader(file)}
    for arm in ARMS:
        run = only(tmp_path / "runs", f"imagenet-{arm}-*-lr{RATES[arm][0]:g}")
        lines = [line.split() for line in (run / "predictions/classification.txt").read_text().splitlines()]
        assert [key for key, *_ in lines] == sorted(truth)
        assert np.mean([int(best) == truth[key] for key, best, *_ in lines]) == pytest.approx(top_1[arm], abs=1e-6)
        assert run.name in (run / "report.html").read_text()
        official = found["benchmarks"][run.name]
        assert official["samples"] == 6 and official["complete"] is False and official["split"] == "val"
        assert official["scores"]["top_5"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    (table,) = transfer_tables(found["transfer"], found["tasks"])  # of the report
    assert "ImageNet-1K" in table["title"]
    json.dumps(found, allow_nan=False)


def test_vqa_is_learned_with_an_answer_for_each_class(pretrained, world, tmp_path):
    root = benchmark_sets.vqa(tmp_path / "set", val=2)
    found = compare(pretrained, world, settings("vqav2", root), tmp_path / "runs")
    assert min(means(found, "vqav2_57", "accuracy").values()) > 0.7  # `no` and one color are right two thirds of the time
    assert min(means(found, "vqav2_57", "accuracy_yes/no").values()) == 1
    answers = json.loads(only(tmp_path / "runs", "vqav2-pretrained-*/predictions/answers.json").read_text())
    assert len(answers) == 12 and {each["answer"] for each in answers} <= {"red", "green", "blue", "no"}


def test_gqa_and_maps_of_voc_are_learned(pretrained, world, tmp_path):
    config = settings("gqa", benchmark_sets.gqa(tmp_path / "gqa"))
    assert min(means(compare(pretrained, world, config, tmp_path / "a"), "gqa_3", "accuracy").values()) > 0.6
    config = settings("voc2012_semseg", benchmark_sets.voc(tmp_path / "voc"), random_crop=(0.5, 1), mirror=True)
    found = compare(pretrained, world, config, tmp_path / "b")
    assert min(means(found, "voc2012_semseg_5", "miou").values()) > 0.6
    assert len(list(only(tmp_path / "b", "*-pretrained-*/predictions").glob("val_*.png"))) == 3


def test_rates_are_chosen_on_examples_that_are_not_learned(pretrained, world, tmp_path):
    root = benchmark_sets.imagenet(tmp_path / "set", train=4, val=1)
    arms = {"pretrained": TransferConfig().arms["pretrained"]}
    config = settings("imagenet", root, steps=2, rates={"pretrained": (0.3, 1.0)}).model_copy(update={"arms": arms})
    found = compare(pretrained, world, config, tmp_path / "runs")
    assert found["lr_multipliers"]["imagenet/pretrained"] in (0.3, 1.0)
    selection = [json.loads(path.read_text())["official"] for path in (tmp_path / "runs").glob("*-transfer_val.json")]
    assert [(each["split"], each["samples"]) for each in selection] == [("train", 3)] * 2
    _, pool = opened("imagenet", root)
    held_out = {entry["key"] for each in selection for entry in each["failures"]}
    learned = {pool.examples[index].key for index in range(len(pool))}
    assert len(held_out) == 3 and len(learned) == 9 and not held_out & learned


def test_answers_and_soft_targets_are_those_of_the_literature():
    def question(*answers):
        return Question("?", answers)

    questions = [question(*["A dog"] * 2, "dog.", "cat", *["the dogs"] * 6), *[question(*["2"] * 9, "two")] * 2]
    questions += [question("dog", "a dog", *["cat"] * 8), question(*["cat"] * 10)]
    known = AnswerVocabulary(questions, min_questions=2, is_exact=False)
    assert known.answers == ("2", "cat")  # `dog` and `dogs` are the most frequent answers of no two questions
    assert known.soft_targets(questions[1]) == {0: 1.0}
    assert known.soft_targets(questions[0]) == {1: 0.3}
    assert known.soft_targets(question("cat", "Cat", "a cat", "dog")) == {1: pytest.approx(0.9)}
    assert known.soft_targets(question("zebra")) == {}
    spelled = AnswerVocabulary([question("a lot", "a lot", "lot")], 1, is_exact=False)
    assert spelled.answers == ("a lot",)  # as people wrote it: where all agree, the evaluation does not normalize
    exact = AnswerVocabulary([question("Dog"), question("dog")], 1, is_exact=True)
    assert exact.answers == ("Dog", "dog") and exact.soft_targets(question("dog")) == {1: 1.0}
    with pytest.raises(ValueError, match=r"No answer has 3 questions .* has 2\. Lower min_questions"):
        AnswerVocabulary(questions, 3, is_exact=False)


def test_loss_of_answers_is_the_sum_over_answers():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    dense = torch.tensor([[0.3, 0, 1, 0], [0, 0, 0, 0], [0, 0.9, 0, 0]])
    found = answer_loss(logits, [{0: 0.3, 2: 1.0}, {}, {1: 0.9}])
    expected = functional.binary_cross_entropy_with_logits(logits, dense) * 4
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_examples_are_read_in_a_seeded_order_and_only_a_batch_ahead(tmp_path):
    root = benchmark_sets.imagenet(tmp_path, train=8, val=1)
    _, pool = opened("imagenet", root, random_crop=(0.2, 0.9), mirror=True)
    read, load = [], pool.examples._load

    def batches(start=None, seed=5):
        return pool.batches(index_batches(len(pool), 4, 0, "order", start=start), seed)

    pool.examples._load = lambda row: read.append(row[0]) or load(row)
    counts = [len(read) for _ in itertools.islice(batches(), 3)]
    assert all(count <= 4 * number for number, count in enumerate(counts, 2))
    assert set(counts) != {len(pool)}
    whole, again = ([(batch.rgb, cursor) for batch, cursor in itertools.islice(batches(), 7)] for _ in range(2))
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(whole, again, strict=True))
    assert whole[4][1] == Cursor(0, 20) and whole[5][1] == Cursor(1, 4)
    resumed = next(batches(whole[3][1]))  # as after a kill
    assert np.array_equal(resumed[0].rgb, whole[4][0]) and resumed[0].classes["class"].dtype == np.int64
    assert not np.array_equal(next(batches(seed=6))[0].rgb, whole[0][0])


def test_maps_follow_their_images_through_crops_and_mirrors(tmp_path):
    _, pool = opened("voc2012_semseg", benchmark_sets.voc(tmp_path), random_crop=(0.3, 0.8), mirror=True)
    batch, _ = next(pool.resized(48).batches(index_batches(len(pool), 5, 0, "order"), 0))
    ids, is_blue = np.stack(batch.labels), batch.rgb[..., 2] > batch.rgb[..., 0]
    assert ids.shape == (5, 48, 48) and {1, 15} <= set(np.unique(ids)) <= {1, 15, 255}
    counted = ids != 255
    assert ((ids == 15) == is_blue)[counted].mean() > 0.97  # all but the pixels at the edge
    assert {bool(is_blue[i, 24, 0]) for i in range(5)} == {True, False}  # some are mirrored


@pytest.mark.parametrize("size", [(30, 40), (40, 30), (10, 300), (1, 1)])
def test_random_parts_are_inside_and_have_the_area(size):
    rng, total = np.random.default_rng(0), size[0] * size[1]
    for _ in range(200):
        top, left, height, width = random_box(*size, (0.25, 0.5), rng)
        assert top >= 0 and left >= 0 and 0 < height <= size[0] - top and 0 < width <= size[1] - left
        if min(size) > 20:
            assert 0.2 < height * width / total < 0.55 and 0.7 < width / height < 1.45
    assert random_box(10, 300, (0.9, 1), rng) == (0, 145, 10, 10)  # none fits: the center


def test_missing_data_and_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"ImageNet-1K: no train or .* in .*\. Get the data from the ImageNet page"):
        opened("imagenet", tmp_path)
    with pytest.raises(ValueError, match=r"finetuning.benchmarks does not name its folder\. Add imagenet: {path"):
        TransferConfig(tasks=("imagenet",))
    with pytest.raises(ValueError, match=r"held_out is 0, so no examples choose the learning rate of arm pretrained"):
        TransferConfig(tasks=("gqa",), benchmarks={"gqa": {"path": tmp_path, "held_out": 0}})
    with pytest.raises(ValueError, match=r"random_crop is \[0.5, 0.1\]; allowed: two shares"):
        TrainedBenchmarkConfig(path=tmp_path, random_crop=(0.5, 0.1))
    root = benchmark_sets.gqa(tmp_path / "gqa")
    with pytest.raises(
        ValueError, match=r"'train_balanced' is learned, so it cannot be scored\. Allowed: val_balanced, testdev"
    ):
        opened("gqa", root, split="train_balanced")
    with pytest.raises(ValueError, match=r"5 examples are held out of the 6 .* Lower finetuning.benchmarks.gqa.held_out"):
        opened("gqa", root, held_out=5)


def test_a_label_that_cannot_be_read_does_not_end_the_examples(tmp_path):
    _, pool = opened("gqa", benchmark_sets.gqa(tmp_path))

    def load(row):
        raise IndexError("class 99")

    pool.examples._load = load
    with pytest.raises(IndexError, match="class 99"):
        list(pool.examples)


def test_benchmarks_are_no_default_tasks_and_need_no_transfer_splits(tmp_path):
    config = TransferConfig(tasks=("imagenet",), benchmarks={"imagenet": {"path": tmp_path}})
    assert not config.reads_transfer_splits
    assert not set(TransferConfig().task_names) & set(MAKE)
    assert {*MAKE, "ade20k", "cityscapes"} <= set(TRANSFER_TASKS)
