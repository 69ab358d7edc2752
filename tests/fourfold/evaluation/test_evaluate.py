"""The table of prediction tasks, with models whose answers are fixed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.evaluation.comparison import derangement
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import evaluate
from fourfold.scenes.evaluation_tasks import shown_shapes
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from tests.fourfold.evaluation.small_scenes import Encoder, Oracle, evaluation_data, write_split

PAIRS = {
    "rgb->caption", "rgb->depth", "rgb->normal", "rgb->semseg", "rgb->clip", "rgb->det", "caption->rgb", "caption->semseg"
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return evaluation_data(tmp_path_factory.mktemp("world"), val=12, test=16)


def run(data, model, **settings):
    config = EvaluationConfig(replicates=50, **settings)
    return evaluate(model, Encoder(), data, config, seed=0)


def test_an_oracle_beats_shuffled_and_trivial_answers(world):
    oracle = Oracle(world)
    table = run(world, oracle)["out_of_the_box"]
    perfect = {"abs_rel": 0, "mean_angle": 0, "mean_angle_objects": 0}
    for pair, metric in [(a, m) for a in table for m in table[a] if not m.startswith("zero_shot")]:
        figure = table[pair][metric]
        assert figure["value"] == pytest.approx(perfect.get(metric, 1), abs=1e-3) or metric.startswith(
            ("recall", "clip_recall")
        )
        if metric not in perfect:
            assert figure["shuffled"] <= figure["value"]
            assert figure["trivial"] <= figure["value"]
        assert set(figure) == {"value", "trivial", "shuffled", "teacher", "ci95"}
    assert table["rgb->normal"]["mean_angle_objects"]["trivial"] > 20
    assert table["rgb->depth"]["abs_rel"]["shuffled"] > 0.05
    assert table["rgb->caption"]["exact"]["teacher"] is None
    asked = [(conditions, targets, chain) for conditions, targets, chain in oracle.asked]
    assert {f"{next(iter(s))}->{t}" for s, (t,), _ in asked} == set(table) == PAIRS
    assert len(asked) == len(PAIRS) and not any(chain for *_, chain in asked)


def test_global_features_are_scored_if_they_are_labeled(tmp_path):
    for split in ("val", "test"):
        write_split(tmp_path, split, 12, with_global=True)
    data = evaluation_data(tmp_path)
    oracle = Oracle(data)
    oracle.answers["clip_global"] = data.labels.load_column("test", "clip_global")
    table = run(data, oracle, recall_k=3)["out_of_the_box"]
    assert set(table) == PAIRS | {"rgb->clip_global", "caption->clip_global"}
    for pair in ("rgb->clip_global", "caption->clip_global"):
        figure = table[pair]["cosine"]
        assert figure["value"] == pytest.approx(1, abs=1e-3) and figure["teacher"] is None  # it would equal itself
        assert max(figure["shuffled"], figure["trivial"]) < 0.95
    assert (
        table["caption->clip_global"]["image_recall_at_3"]["value"]
        > table["caption->clip_global"]["image_recall_at_3"]["shuffled"]
    )


EDGES = np.zeros((12, 32, 32), np.uint8)
EDGES[np.arange(12), np.arange(12) * 2] = 255  # a line in each image, another one each time
PALETTES = [{"1": [[20 * i, 0, 0]], "2": [[20 * i, 0, 0], [0, 255 - 20 * i, 0]]} for i in range(12)]
METADATA = [{"brightness": 20.0 * i, "caption_n_words": i % 4} for i in range(12)]
COMPUTED = {"canny_edge": EDGES, "color_palette": PALETTES, "metadata": METADATA}


def test_computed_modalities_are_scored_if_they_are_labeled(tmp_path):
    for split in ("val", "test"):
        write_split(tmp_path, split, 12)
        keys = ShardSet(tmp_path / "labels").keys(split)
        write_columns(tmp_path / "labels", split, shard_name(0), {n: zip(keys, v, strict=True) for n, v in COMPUTED.items()})
        finish_split(tmp_path / "labels", split, list(COMPUTED))
    data = evaluation_data(tmp_path)
    oracle = Oracle(data)
    oracle.answers |= COMPUTED | {"color_palette": [{"2": palettes["2"]} for palettes in PALETTES]}
    table = run(data, oracle)["out_of_the_box"]
    assert set(table) == PAIRS | {f"rgb->{name}" for name in COMPUTED}
    perfect = {"canny_edge": {"f1": 1}, "color_palette": {"color_distance": 0}, "metadata": {"same_bin": 1, "near_bin": 1}}
    for name, metrics in perfect.items():
        for metric, best in metrics.items():
            figure = table[f"rgb->{name}"][metric]
            assert figure["value"] == best and figure["teacher"] is None
            worse = -1 if best else 1
            assert worse * (figure["shuffled"] - best) > 0.1 and worse * (figure["trivial"] - best) > 0.1


def test_zero_shot_with_true_features_beats_the_majority(world):
    table = run(world, Oracle(world))["out_of_the_box"]["rgb->clip"]
    for figure in (table["zero_shot_shape"], table["zero_shot_color"]):
        assert figure["value"] == figure["teacher"] == 1
        assert max(figure["trivial"], figure["shuffled"]) < 1


def test_without_truth_the_labels_are_the_reference(world):
    found = run(replace(world, truth=None), Oracle(world))
    assert "teachers' labels" in found["reference"]
    assert "zero_shot_shape" not in found["out_of_the_box"]["rgb->clip"]
    assert found["out_of_the_box"]["rgb->det"]["ap50"]["value"] == pytest.approx(1)
    assert set(found["out_of_the_box"]["rgb->caption"]) == {"word_f1", "verbatim"}
    assert "caption->semseg" not in found["out_of_the_box"]


def test_the_same_seed_gives_the_same_table(world):
    assert run(world, Oracle(world)) == run(world, Oracle(world))


def test_a_prediction_may_go_by_way_of_other_targets(world):
    oracle = Oracle(world)
    run(world, oracle, tasks={"caption->rgb": {"via": ("semseg", "clip")}})
    assert ({"caption"}, ("semseg", "clip", "rgb"), True) in oracle.asked
    with pytest.raises(ValueError, match=r"Allowed: .*rgb->depth"):
        EvaluationConfig(tasks={"caption->rbg": {}})


@pytest.mark.parametrize(("count", "seed"), itertools.product([2, 3, 50], [0, 1]))
def test_a_derangement_moves_every_sample(count, seed):
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert all(order != np.arange(count))


def test_a_class_below_the_minimum_share_is_not_shown():
    classes = np.ones((20, 20), np.uint8)
    classes[0, 0], classes[5:10, 5:10] = 2, 3
    assert shown_shapes(classes, CLASS_TABLE, min_share=0.005) == {"box"}
