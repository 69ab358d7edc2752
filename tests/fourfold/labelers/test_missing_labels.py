"""A sample on which a labeler fails costs only itself: one missing label, counted with its reason, and bounded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourfold.configuration import Config
from fourfold.data.fact_tables import fact_table
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.data.work_split import WorkSplit
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.labelers import Labeler, LabelingConfig, integrate_labels, label_shards, register, train_teachers
from fourfold.labelers.card import label_card
from fourfold.labelers.gallery import label_gallery
from fourfold.labelers.losses import Loss, LossCounts
from fourfold.labelers.protocol import Batch, Teacher
from fourfold.labelers.teachers import TeacherSet
from fourfold.metric_log import NullMetricLog
from fourfold.tokenizers.stored_values import incomplete_keys, load_values
from tests.fourfold.killing import files_of

NUMBERS = range(24)
SHARD = 8


def predict(network: Any, batch: Batch) -> int:
    if 9 in batch["rgb"][:, 0, 0, 0]:
        raise RuntimeError("not an image that this network knows")
    return len(batch["__key__"])


class Moody(Labeler):
    """A depth of (number + 1) meters; fails on image 3, and gives an impossible depth for image 5 and one that is far at 20."""

    name, title, modality = "moody", "Fails on some images", "depth"

    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        numbers = [int(rgb_HW3[0, 0, 0]) for rgb_HW3 in batch["rgb"]]
        if 3 in numbers:
            raise OSError(f"{batch['__key__'][numbers.index(3)]} cannot be read at {object()!r}")
        return [np.full((16, 16), {5: -1.0, 20: 5000.0}.get(number, number + 1.0)) for number in numbers]


class Moodier(Labeler):
    """Segments of a teacher whose network fails on image 9."""

    name, title, modality = "moodier", "Has a teacher that fails on an image", "canny_edge"
    teacher = Teacher("moodier", Config, lambda *_: (torch.nn.Identity(), {}), lambda *_: torch.nn.Identity(), predict)

    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        assert output == len(batch["__key__"]), "the outputs belong to the samples"
        return [np.zeros((16, 16), np.uint8)] * output


@pytest.fixture
def images(tmp_path: Path) -> ShardSet:
    for start in range(0, len(NUMBERS), SHARD):
        pairs = [(f"photo-{n:02d}", np.full((16, 16, 3), n, np.uint8)) for n in NUMBERS[start : start + SHARD]]
        columns = {"rgb": pairs, "caption": [(key, "a photo") for key, _ in pairs]}
        write_columns(tmp_path / "images", "val", f"shard-{start // SHARD:05d}.tar", columns)
    finish_split(tmp_path / "images", "val", ["rgb", "caption"])
    return ShardSet(tmp_path / "images")


@pytest.fixture
def config() -> LabelingConfig:
    for labeler in (Moody, Moodier):
        register(labeler)
    labelers = {"depth": "moody", "normal": "normals_from_depth", "canny_edge": "moodier"}
    return LabelingConfig(labelers=labelers, batch_size=4, max_missing_share=0.3)


def teachers_of(images: ShardSet, config: LabelingConfig, folder: Path) -> TeacherSet:
    return train_teachers(images, images, config, 0, folder, NullMetricLog())


@pytest.fixture
def labeled(images: ShardSet, config: LabelingConfig, tmp_path: Path) -> tuple[ShardSet, dict[str, Any]]:
    raw = label_shards(images, teachers_of(images, config, tmp_path / "teachers"), config, tmp_path / "raw")
    return integrate_labels(raw, images, config, tmp_path / "labels")


def missing_of(labels: ShardSet, modality: str) -> dict[str, str]:
    samples = labels.iterate("val", [modality])
    return {one["__key__"]: one[modality].reason for one in samples if isinstance(one[modality], Missing)}


def test_only_the_samples_that_fail_lack_a_label(labeled: tuple[ShardSet, dict[str, Any]]) -> None:
    labels, report = labeled
    assert labels.keys("val") == [f"photo-{n:02d}" for n in NUMBERS]
    depth = missing_of(labels, "depth")
    assert depth.pop("photo-03") == "OSError: … cannot be read at <object object at 0x…>"
    assert depth.pop("photo-05").startswith("impossible: depth from -1.0")
    assert depth.pop("photo-20") == "impossible: depth from 5000.0 to 5000.0 m; allowed: above 0 and at most 1000.0 m"
    assert not depth
    # What is made from a missing label is missing as well
    assert missing_of(labels, "normal") == {
        "photo-03": "no depth to make it from",
        "photo-05": "no depth to make it from",
        "photo-20": "made from an impossible label: depth",
    }
    assert missing_of(labels, "canny_edge") == {"photo-09": "RuntimeError: not an image that this network knows"}
    # The others have their own label
    depths = {one["__key__"]: one["depth"] for one in labels.iterate("val", ["depth"])}
    for number in set(NUMBERS) - {3, 5, 20}:
        assert (depths[f"photo-{number:02d}"] == number + 1).all()
    # Everything is counted
    assert {name: report["val"][name] for name in ("missing/depth", "missing/normal", "missing/canny_edge", "samples")} == {
        "missing/depth": 3,
        "missing/normal": 3,
        "missing/canny_edge": 1,
        "samples": 24,
    }
    found = report["val"]["missing"]["normal"]["no depth to make it from"]
    assert found == {"count": 2, "examples": ["val/photo-03", "val/photo-05"]}


def test_bytes_do_not_depend_on_processes_or_an_interruption(
    images: ShardSet, config: LabelingConfig, labeled: tuple[ShardSet, dict[str, Any]], tmp_path: Path
) -> None:
    teachers = teachers_of(images, config, tmp_path / "teachers")
    for index in (1, 0):
        label_shards(images, teachers, config, tmp_path / "parts", WorkSplit(index, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # two processes
    try:
        raw = label_shards(images, teachers, config, tmp_path / "parts")
        label_shards(images, teachers, config, tmp_path / "two")
        again, report = integrate_labels(raw, images, config, tmp_path / "again")
    finally:
        torch.set_num_threads(threads)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "two") == files_of(tmp_path / "raw")
    assert files_of(again.root) == files_of(labeled[0].root) and report == labeled[1]


def test_more_failures_than_allowed_stop_the_stage(images: ShardSet, config: LabelingConfig, tmp_path: Path) -> None:
    strict = config.model_copy(update={"max_missing_share": 0.05})
    teachers = teachers_of(images, config, tmp_path / "teachers")
    message = r"2 of 8 depth labels are missing so far; allowed are 5% of 24\. 1 × OSError.*\(e\.g\. val/photo-03\); 1 × imp"
    with pytest.raises(ValueError, match=message):
        label_shards(images, teachers, strict, tmp_path / "raw")
    assert not list((tmp_path / "raw").rglob("manifest.json"))
    # The labels that there are stay: a larger share is enough to continue
    label_shards(images, teachers, config, tmp_path / "raw")
    # Integration knows limits that labeling does not know
    with pytest.raises(ValueError, match=r"3 of 24 depth labels are missing so far; allowed are 10%"):
        integrate_labels(
            ShardSet(tmp_path / "raw"), images, config.model_copy(update={"max_missing_share": 0.1}), tmp_path / "labels"
        )


def test_a_labeler_that_fails_everywhere_is_stopped_early() -> None:
    losses = LossCounts(total=1_000_000, max_share=0.5)
    with pytest.raises(ValueError, match=r"100 of 100 depth labels are missing so far; .* 100 × no network \(e\.g\. train/0\)"):
        losses.add("train", 100, [Loss("depth", str(n), "no network") for n in range(100)])


@pytest.mark.parametrize("fault", [MemoryError(), ConnectionError("reset"), torch.OutOfMemoryError("CUDA")])
def test_a_fault_of_the_machine_is_no_failure_of_a_sample(
    images: ShardSet, config: LabelingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def label(self: Labeler, batch: Batch, output: Any = None) -> list[Any]:
        raise fault

    monkeypatch.setattr(Moody, "label", label)
    with pytest.raises(type(fault)):
        label_shards(images, teachers_of(images, config, tmp_path / "teachers"), config, tmp_path / "raw")


def test_everything_that_reads_labels_leaves_missing_ones_out(
    images: ShardSet, labeled: tuple[ShardSet, dict[str, Any]], config: LabelingConfig
) -> None:
    labels, report = labeled
    # 1) Tokenizers learn from the labels that there are, and are measured on samples that lack none
    assert load_values(labels, "val", "depth", 100).shape == (21, 16, 16)
    assert incomplete_keys(labels, "val", ["depth", "canny_edge"]) == {f"photo-{n:02d}" for n in (3, 5, 9, 20)}
    # 2) Evaluation reads complete samples, aligned with their images
    samples = load_samples(EvaluationData(images, labels, None), "val", ["depth", "canny_edge"], 18)
    assert samples.incomplete == 4 and len(samples) == 18
    np.testing.assert_array_equal(samples.labels["depth"][:, 0, 0], samples.rgb[:, 0, 0, 0] + 1.0)
    # 3) Facts for the checks of the data
    facts = [fact for fact in fact_table(labels) if fact["modality"] == "depth" and fact["missing"]]
    assert [fact["key"] for fact in facts] == ["photo-03", "photo-05", "photo-20"] and facts[0]["min"] is None
    # 4) Pages for people
    assert label_gallery(images, labels, "val").startswith(b"\x89PNG")
    card = label_card(labels, config, report)
    assert "| val | canny_edge | 1 | RuntimeError: not an image that this network knows | val/photo-09 |" in card
    assert "Missing labels" not in label_card(labels, config, {"val": {"samples": 24}})
