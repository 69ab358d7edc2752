"""Released models on labeled sets of others: what fits is scored, the rest is named."""

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.evaluation.config import EvaluationConfig, TaskGenerationConfig
from fourfold.evaluation.evaluate import evaluate, required_names, score_tasks
from fourfold.evaluation.paired import PairedScores
from fourfold.evaluation.report.gallery import collect_gallery
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, TaskContext
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.metrics.dense import aligned_depth
from fourfold.modalities.class_table import ClassTable
from fourfold.tokenizers.released import visual
from tests.support.released_set import SIDE, make_released_set

RNG = np.random.default_rng(0)
COCO = ClassTable(names=tuple(f"class {index}" for index in range(133)), ignored=(255,), things=tuple(range(80)))
SHORT = TaskGenerationConfig(generation=GenerationConfig(sequences=TargetConfig(max_tokens=6)))
CONFIG = EvaluationConfig(
    replicates=10, gallery_samples=1, recall_k=2, tasks=dict.fromkeys(("rgb->caption", "rgb->det"), SHORT)
)
BOX = {"instances": [{"box": [0.1, 0.1, 0.5, 0.5], "class_name": "dog", "score": 1.0}]}


class Encoder:
    def encode_text(self, texts):
        return np.array([[len(text), text.count("a"), 1, 2, 3] for text in texts], float)

    def encode_image(self, rgb):
        pooled = rgb.reshape(len(rgb), -1)[:, :5].astype(float)
        return pooled[:, None, None], pooled

    def pool(self, features):
        return features.mean((1, 2))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visual, "NUM_DECODING_STEPS", 1)  # to save time
        yield AnyToAny.from_released(make_released_set(tmp_path_factory.mktemp("released")))


def labeled(root, table=COCO, clip_shape=(2, 2, 5), count=4) -> EvaluationData:
    """Write random images with labels."""
    dense = {
        "depth": RNG.uniform(1, 9, (count, SIDE, SIDE)).astype(np.float16),
        "normal": RNG.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8),
        "semseg": RNG.integers(0, table.num_classes, (count, SIDE, SIDE)).astype(np.uint8),
        "clip": RNG.normal(size=(count, *clip_shape)).astype(np.float16),
        "det": [BOX] * count,
    }
    inputs = {"rgb": RNG.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8), "caption": ["a man rides"] * count}
    for split in ("val", "test"):
        keys = [f"{split}-{index}" for index in range(count)]
        for folder, columns in (("shards", inputs), ("labels", dense)):
            written = {name: zip(keys, values, strict=True) for name, values in columns.items()}
            write_columns(root / folder, split, shard_name(0), written)
            tables = {"semseg": table} if folder == "labels" else {}
            finish_split(root / folder, split, list(columns), class_tables=tables)
    return EvaluationData(ShardSet(root / "shards"), ShardSet(root / "labels"), None)


@pytest.fixture(scope="module")
def fitting(released, tmp_path_factory):
    """A data set that fits the model, and its evaluation."""
    data = labeled(tmp_path_factory.mktemp("fitting"))
    return data, evaluate(released, Encoder(), data, CONFIG, 0)


def test_labels_of_the_same_networks_are_scored_completely(released, fitting):
    data, found = fitting
    assert set(found["out_of_the_box"]) == {
        "rgb->depth", "rgb->normal", "rgb->semseg", "rgb->clip", "rgb->det", "rgb->caption", "caption->rgb"
    }  # fmt: skip
    assert "misfits" not in found and "depth is scaled and shifted to it, image by image" in found["reference"]
    assert set(collect_gallery(released, data, CONFIG, 0).columns) == {"depth", "normal", "semseg", "clip", "det"}


def test_the_error_of_depth_is_that_after_the_best_scale_and_shift(released, fitting):
    data, table = fitting
    rgb, truth = (np.asarray(s.load_column("test", n)) for s, n in ((data.shards, "rgb"), (data.labels, "depth")))
    predicted = released.predict({"rgb": rgb}, ["depth"])["depth"].astype(float)
    errors = []
    for ours, theirs in zip(predicted, truth.astype(float), strict=True):
        terms = np.stack([ours.ravel(), np.ones(ours.size)], axis=1)
        fitted = terms @ np.linalg.lstsq(terms, theirs.ravel(), rcond=None)[0]
        errors.append(np.abs(fitted - theirs.ravel()) / theirs.ravel())
    found = table["out_of_the_box"]["rgb->depth"]["abs_rel"]
    assert found["value"] == pytest.approx(np.mean(errors), abs=1e-4)


def test_labels_that_do_not_fit_are_named_and_not_scored(released, tmp_path):
    data = labeled(tmp_path, ClassTable(names=("sky", "ground")), clip_shape=(4, 4, 7))
    found = evaluate(released, Encoder(), data, CONFIG, 0)
    assert not {"rgb->semseg", "rgb->clip"} & set(found["out_of_the_box"])
    assert found["misfits"] == {
        "rgb->semseg": "the model predicts 133 classes, and the data has 2 (sky, ground, …)",
        "rgb->clip": "the model predicts 'clip' of shape (2, 2, 5), and that of the data has (4, 4, 7)",
    }
    assert set(collect_gallery(released, data, CONFIG, 0).columns) == {"depth", "normal", "det"}


def test_a_label_without_a_tokenizer_is_named(released, fitting):
    data, _ = fitting
    tokenizers = {name: one for name, one in released.tokenizers.visual.items() if name != "depth"}
    complete, released.tokenizers.visual = released.tokenizers.visual, tokenizers
    try:
        found = evaluate(released, None, data, CONFIG, 0)
    finally:
        released.tokenizers.visual = complete
    assert found["misfits"] == {"rgb->depth": "the model has no tokenizer of 'depth'"} and "scaled" not in found["reference"]


def test_errors_in_meters_and_after_alignment_are_never_compared(released, fitting):
    """The gate of the registry compares metrics only if their data have the same digest."""
    context = TaskContext(load_samples(fitting[0], "test", required_names(), 10), None, CONFIG)
    tasks, digests = [PREDICTION_TASKS.get(name) for name in ("rgb->depth", "rgb->normal")], []
    for is_relative in (True, False):
        paired = PairedScores(10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AnyToAny, "has_relative_depth", is_relative)
            score_tasks(released, context, None, tasks, 0, paired=paired)
        digests.append({name: paired.metrics[name]["data"] for name in ("rgb->depth/abs_rel", "rgb->normal/mean_angle")})
    assert digests[0]["rgb->depth/abs_rel"] != digests[1]["rgb->depth/abs_rel"]
    assert digests[0]["rgb->normal/mean_angle"] == digests[1]["rgb->normal/mean_angle"]


@pytest.mark.parametrize("empty", [False, True])
def test_alignment_undoes_any_scale_and_shift(empty):
    truth = RNG.uniform(1, 9, (3, 8, 8))
    valid = RNG.uniform(size=truth.shape) < 0.7
    valid[1] &= not empty
    predicted = truth * np.array([0.1, 5, -2])[:, None, None] + np.array([3, -1, 0])[:, None, None]
    aligned = aligned_depth(np.where(valid, predicted, 1e6), truth, valid)
    assert np.allclose(aligned[valid], truth[valid])
    constant = aligned_depth(np.ones_like(truth), truth, valid)
    assert np.allclose(constant[0], truth[0][valid[0]].mean()) and np.isfinite(constant).all()
