"""Answers about a frame: one pass, in the geometry of the frame."""

import numpy as np
import pytest

from fourfold.evaluation.benchmarks.views import View, dense_classes, dense_values
from fourfold.evaluation.frames import predicting
from fourfold.evaluation.frames.predicting import FrameSettings, predict_frame
from fourfold.generation.conditions import MISSING
from fourfold.generation.sparse_depth import sparse_depth_tokens
from tests.support.tiny_any_to_any import tiny_any_to_any

FRAME = np.random.default_rng(0).integers(0, 256, (24, 70, 3), dtype=np.uint8)
VIEWS = ("squash", "crop", "windows")


@pytest.fixture(scope="module")
def model():
    return tiny_any_to_any()


@pytest.mark.parametrize("view", VIEWS)
def test_maps_are_those_that_the_benchmarks_score(model, view):
    found = predict_frame(model, FRAME, FrameSettings(view=view)).values

    def predict(name):
        return lambda rgb: model.predict({"rgb": rgb}, [name])[name]

    expected = dense_values(View(view, 16), [FRAME], predict("depth"))[0][..., 0]
    assert found["depth"].shape == FRAME.shape[:2]
    np.testing.assert_allclose(found["depth"], expected, rtol=1e-6)
    ids = dense_classes(View(view, 16), [FRAME], predict("semseg"), np.arange(256, dtype=np.uint8), 3)[0]
    assert np.array_equal(found["semseg"], ids)


def test_encoder_runs_once_for_all_parts_and_labels(model, monkeypatch):
    batches, encode, decode = [], model.model.encode, model.model.decode
    monkeypatch.setattr(model.model, "encode", lambda batch: batches.append(batch.batch_size) or encode(batch))
    monkeypatch.setattr(model.model, "decode", lambda *inputs: batches.append("maps") or decode(*inputs))
    predict_frame(model, FRAME, FrameSettings(view="windows"), np.full(FRAME.shape[:2], 5, np.float32) * (FRAME[..., 0] > 9))
    assert batches == [len(View("windows", 16).boxes(24, 70)), "maps"]


def test_sparse_depth_is_kept_and_the_other_labels_see_it(model):
    sparse = np.zeros(FRAME.shape[:2], np.float32)
    sparse[:12] = 30
    answer = predict_frame(model, FRAME, FrameSettings(("depth", "semseg")), sparse)
    assert (answer.num_given, answer.num_tokens) == (2, 4)
    (tokens,) = sparse_depth_tokens(model, [sparse])
    known = {"rgb": View("squash", 16).inputs(FRAME), "tok_depth": tokens[None]}
    expected = model.predict(known, ["tok_depth", "semseg"])
    assert (tokens != MISSING).sum() == 2 and model.predict(known, ["tok_depth"])["tok_depth"].shape == (1, 16, 16)
    assert np.array_equal(answer.values["semseg"], predicting.merged_classes(
        (24, 70), View("squash", 16).parts((24, 70), expected["semseg"]), predicting.SAME_IDS, 3))  # fmt: skip
    without = predict_frame(model, FRAME, FrameSettings(("depth", "semseg")))
    assert not np.array_equal(answer.values["depth"], without.values["depth"]) and without.num_tokens == 0


def box(x0, y0, x1, y1, name="car", score=1.0):
    return {"box": [x0, y0, x1, y1], "class_name": name, "score": score}


def merged(view, answers, size=(10, 30)):
    return predicting._boxes(size, View(view, 16).parts(size, [{"instances": each} for each in answers]))["instances"]


def test_boxes_return_to_their_place_in_the_frame():
    assert merged("squash", [[box(0.1, 0.2, 0.3, 0.4)]]) == [box(0.1, 0.2, 0.3, 0.4)]
    (found,) = merged("crop", [[box(0, 0, 0.5, 1)]])
    assert found["box"] == pytest.approx([1 / 3, 0, 0.5, 1], abs=1e-6)
    empty = [[] for _ in range(4)]
    (found,) = merged("windows", [*empty, [box(0.5, 0.5, 1, 1)]])  # the last of five windows
    assert found["box"] == pytest.approx([5 / 6, 0.5, 1, 1], abs=1e-6)


def test_an_object_in_two_windows_is_one_object():
    left, right = [box(0.5, 0, 1, 1, score=0.6)], [box(0, 0.05, 0.5, 1, score=0.9)]  # the same pixels, nearly
    found = merged("windows", [left, right, [], [], []])
    assert [one["score"] for one in found] == [0.9]
    other = [box(0, 0, 0.5, 1, "person")]
    assert len(merged("windows", [left, other, [], [], []])) == 2
    assert len(merged("squash", [[box(0, 0, 1, 1), box(0, 0, 1, 0.9)]])) == 2  # as the model wrote them


def test_unknown_labels_are_refused(model):
    with pytest.raises(ValueError, match="Frames cannot be answered with clip, dpeth; allowed: depth, semseg, det"):
        FrameSettings(("depth", "dpeth", "clip"))
