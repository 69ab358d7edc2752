"""The worst cases: the samples whose own score is worst, with images of what went wrong."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from fourfold.evaluation.comparison import score_columns
from fourfold.evaluation.error_maps import comparable, counted_pixels, error_map
from fourfold.evaluation.evaluate import required_names
from fourfold.evaluation.samples import Samples, load_samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, TaskContext
from fourfold.evaluation.worst import MAX_SIDE, WorstCases, each_alone
from fourfold.metrics.boxes import average_precision_50, average_precision_statistic
from fourfold.metrics.dense import depth_statistics
from fourfold.metrics.statistics import value
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from tests.fourfold.evaluation.small_scenes import evaluation_data

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Samples:
    return load_samples(evaluation_data(tmp_path_factory.mktemp("world"), val=2, test=9), "test", required_names(), 9)


def found(name: str, predicted, samples: Samples, count: int = 3) -> dict:
    task, context = PREDICTION_TASKS.get(name), TaskContext(samples, None)
    return WorstCases(count).find(task, context, predicted, score_columns(task, context, None, predicted, 0))


def decoded(cell: dict) -> np.ndarray:
    kind, _, content = cell["image"].partition("base64,")
    assert kind == "data:image/png;"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_sample_alone_has_the_score_of_a_split_with_this_sample_only(samples):
    truth, valid = samples.truth["depth"], samples.valid
    predicted = (truth.astype(np.float32) * RNG.uniform(0.8, 1.2, (9, 1, 1))).astype(np.float16)
    alone = each_alone(depth_statistics(predicted, truth, valid)["abs_rel"])
    one_by_one = [
        value(depth_statistics(predicted[i : i + 1], truth[i : i + 1], valid[i : i + 1])["abs_rel"]) for i in range(9)
    ]
    assert alone == pytest.approx(one_by_one)
    boxes = [*samples.truth["det"][1:], samples.truth["det"][0]]  # those of another sample
    alone = each_alone(average_precision_statistic(boxes, samples.truth["det"]))
    assert alone == pytest.approx([average_precision_50([b], [t]) for b, t in zip(boxes, samples.truth["det"], strict=True)])


def test_the_worst_samples_come_first_with_prediction_truth_and_error(samples):
    wrong = {5: 1.2, 2: 1.1, 7: 1.05}
    predicted = samples.truth["depth"].astype(np.float32)
    for index, factor in wrong.items():
        predicted[index] *= factor
    result = found("rgb->depth", predicted.astype(np.float16), samples)
    assert [case["key"] for case in result["cases"]] == [samples.keys[i] for i in wrong]
    assert [case["score"] for case in result["cases"]] == pytest.approx([0.2, 0.1, 0.05], abs=2e-3)
    cells = result["cases"][0]["cells"]
    assert [cell["title"] for cell in cells] == ["input", "prediction", "truth", "error"]
    assert np.array_equal(decoded(cells[0]), samples.rgb[5])
    assert result["metric"] == "abs_rel" and result["as_bad_as_the_last"] == 1


def test_samples_that_are_equally_bad_are_counted(samples):
    result = found("rgb->semseg", np.full_like(samples.truth["semseg"], CLASS_TABLE.id_of("cone")), samples, count=2)
    scores = [case["score"] for case in result["cases"]]
    assert scores == sorted(scores) and scores[-1] < 0.5 and result["as_bad_as_the_last"] >= 1
    texts = found("rgb->caption/scenes", ["nothing"] * 9, samples, count=2)
    assert texts["as_bad_as_the_last"] == 9 and [case["key"] for case in texts["cases"]] == samples.keys[:2]
    assert [sorted(cell) for cell in texts["cases"][0]["cells"]] == [["image", "title"], *[["text", "title"]] * 2]


def test_samples_without_anything_to_compare_are_no_worst_cases(samples):
    nothing = [{"instances": []}] * 9
    without = Samples(samples.keys, samples.rgb, samples.captions, {}, {"det": nothing}, True)
    assert found("rgb->det", nothing, without) == {}


def test_errors_have_one_scale_and_skip_what_does_not_count(samples):
    truth = samples.truth["depth"][0].astype(np.float32)
    counted = counted_pixels("depth", samples, 0)
    assert counted.any() and not counted.all()  # the sky has no depth
    image = error_map("depth", (truth * np.where(np.arange(32) < 16, 1.0, 1.5)).astype(np.float16), truth, counted)
    bright = image.astype(int).sum(axis=-1)
    left, right = np.arange(32) < 16, np.arange(32) >= 16
    assert (image[~counted] == 128).all()
    assert bright[counted & left].max() < 40 and bright[counted & right].min() > 600
    turned = np.zeros((2, 2, 3), np.uint8) + np.uint8([128, 128, 255])
    assert error_map("normal", turned, turned).max() < 40
    assert error_map("semseg", np.uint8([[0, 1]]), np.uint8([[0, 2]])).astype(int).sum(-1).argmax() == 1
    assert error_map("rgb", turned, turned) is None  # many images can answer one caption


def test_depth_without_a_unit_is_shown_as_it_is_scored(samples):
    doubled = (samples.truth["depth"].astype(np.float32) * 2).astype(np.float16)
    shown = comparable("depth", doubled, samples, relative_depth=True)[0]
    counted = counted_pixels("depth", samples, 0)
    assert error_map("depth", shown, samples.truth["depth"][0], counted)[counted].max() < 40
    assert comparable("depth", doubled, samples, relative_depth=False) is doubled
    assert comparable("normal", doubled, samples, relative_depth=True) is doubled


def test_large_images_are_reduced(samples):
    big = np.repeat(np.repeat(samples.rgb, 8, axis=1), 8, axis=2)
    large = Samples(samples.keys, big, samples.captions, samples.labels, samples.truth, True, samples.class_table)
    result = found("rgb->caption/scenes", ["nothing"] * 9, large, count=1)
    assert decoded(result["cases"][0]["cells"][0]).shape == (MAX_SIDE, MAX_SIDE, 3)
