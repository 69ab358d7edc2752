"""The tables, with students that know everything, something or nothing."""

import itertools

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.evaluation.comparison import derangement
from fourfold.evaluation.evaluate import ARROWS, EvaluationConfig, evaluate, shown_shapes
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.render import render
from fourfold.scenes.world.scene import scene
from fourfold.scenes.world.vocabulary import COLORS, SHAPES
from fourfold.scenes.world.writing import TRUTH, truth_columns

WORDS = (*COLORS, *SHAPES)
CONFIG = ScenesConfig(image_size=32, max_objects=1)


class Encoder:
    """Knows which colors and shapes a text names, and which stand in the corner of a picture that `drawn` made."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return np.array([[word in text.split() for word in WORDS] for text in texts], float) + 0.01

    def encode_image(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pooled = rgb[:, 0, : len(WORDS), 0] / 255 + 0.01
        return np.broadcast_to(pooled[:, None, None], (len(rgb), 4, 4, len(WORDS))), pooled

    def pool(self, features: np.ndarray) -> np.ndarray:
        return features.mean((1, 2))


def write_split(root, split: str, count: int, with_global: bool = False) -> None:
    scenes = [scene(0, split, index, CONFIG) for index in range(count)]
    rendered, keys = render(scenes, CONFIG), [one.key for one in scenes]
    truth = truth_columns(scenes, rendered)
    captions = [caption(one) for one in scenes]
    pictures = rendered.rgb.copy()
    pictures[:, 0, : len(WORDS)] = (Encoder().encode_text(captions)[..., None] > 0.5) * 255
    features, pooled = (values.astype(np.float16) for values in Encoder().encode_image(pictures))
    globally = {"clip_global": zip(keys, pooled, strict=True)} if with_global else {}
    for folder, columns in (
        ("shards", {"rgb": zip(keys, pictures, strict=True), "caption": zip(keys, captions, strict=True)}),
        ("truth", truth),
        ("labels", {**{m: truth[m] for m in TRUTH if m != "attributes"}, "clip": zip(keys, features, strict=True)} | globally),
    ):
        write_columns(root / folder, split, shard_name(0), columns)
        finish_split(root / folder, split, list(columns))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_split(root, "val", 12)
    write_split(root, "test", 16)
    return {name: ShardSet(root / name) for name in ("shards", "labels", "truth")}


class Oracle:
    """Answers with what is stored for the split."""

    def __init__(self, world: dict[str, ShardSet]) -> None:
        truth = {m: world["labels"].load_column("test", m) for m in ("depth", "normal", "semseg", "det", "clip")}
        self.answers = truth | {m: world["shards"].load_column("test", m) for m in ("rgb", "caption")}
        self.asked: list = []

    def predict(self, conditions, targets, *, config=None, seed=0):
        self.asked.append((set(conditions), tuple(targets), config.chain))
        return {target: self.answers[target] for target in targets}


def run(world, model, truth="truth", **settings):
    config = EvaluationConfig(replicates=50, **settings)
    return evaluate(model, Encoder(), world["shards"], world["labels"], world.get(truth), "test", config, seed=0)


def test_an_oracle_is_perfect_shuffling_it_is_not_and_ignoring_the_input_is_worse(world):
    oracle = Oracle(world)
    table = run(world, oracle)["out_of_the_box"]
    perfect = {"abs_rel": 0, "mean_angle": 0, "mean_angle_objects": 0}
    for arrow, metric in [(a, m) for a in table for m in table[a] if not m.startswith("zero_shot")]:
        figure = table[arrow][metric]
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
    assert oracle.asked == [({s}, (t,), False) for s, targets in ARROWS.items() for t in targets]


def test_global_features_are_judged_where_they_are_labeled(tmp_path):
    for split in ("val", "test"):
        write_split(tmp_path, split, 12, with_global=True)
    world = {name: ShardSet(tmp_path / name) for name in ("shards", "labels", "truth")}
    oracle = Oracle(world)
    oracle.answers["clip_global"] = world["labels"].load_column("test", "clip_global")
    table = run(world, oracle, recall_k=3)["out_of_the_box"]
    assert set(table) == {f"{s}->{t}" for s, targets in ARROWS.items() for t in (*targets, "clip_global")}
    for arrow, teacher in (("rgb->clip_global", 1), ("caption->clip_global", None)):
        figure = table[arrow]["cosine"]
        assert figure["value"] == pytest.approx(1, abs=1e-3) and figure["teacher"] == (
            teacher and pytest.approx(teacher, abs=1e-3)
        )
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


def test_what_is_computed_from_images_is_judged_where_it_is_labeled(tmp_path):
    for split in ("val", "test"):
        write_split(tmp_path, split, 12)
        keys = ShardSet(tmp_path / "labels").keys(split)
        write_columns(tmp_path / "labels", split, shard_name(0), {n: zip(keys, v, strict=True) for n, v in COMPUTED.items()})
        finish_split(tmp_path / "labels", split, list(COMPUTED))
    world = {name: ShardSet(tmp_path / name) for name in ("shards", "labels", "truth")}
    oracle = Oracle(world)
    oracle.answers |= COMPUTED | {"color_palette": [{"2": palettes["2"]} for palettes in PALETTES]}
    table = run(world, oracle)["out_of_the_box"]
    assert set(table) == {f"{s}->{t}" for s, ts in ARROWS.items() for t in ts} | {f"rgb->{name}" for name in COMPUTED}
    perfect = {"canny_edge": {"f1": 1}, "color_palette": {"color_distance": 0}, "metadata": {"same_bin": 1, "near_bin": 1}}
    for name, figures in perfect.items():
        for metric, best in figures.items():
            figure = table[f"rgb->{name}"][metric]
            assert figure["value"] == best and figure["teacher"] is None
            worse = -1 if best else 1
            assert worse * (figure["shuffled"] - best) > 0.1 and worse * (figure["trivial"] - best) > 0.1


def test_zero_shot_by_true_features_beats_the_majority(world):
    table = run(world, Oracle(world))["out_of_the_box"]["rgb->clip"]
    for figure in (table["zero_shot_shape"], table["zero_shot_color"]):
        assert figure["value"] == figure["teacher"] == 1
        assert max(figure["trivial"], figure["shuffled"]) < 1


def test_without_truth_the_labels_are_the_reference_and_the_result_says_so(world):
    found = run(world, Oracle(world), truth="none")
    assert "teachers' labels" in found["reference"]
    assert "zero_shot_shape" not in found["out_of_the_box"]["rgb->clip"]
    assert found["out_of_the_box"]["rgb->det"]["ap50"]["value"] == pytest.approx(1)


def test_the_same_seed_gives_the_same_table(world):
    assert run(world, Oracle(world)) == run(world, Oracle(world))


def test_an_arrow_may_go_by_way_of_other_targets(world):
    oracle = Oracle(world)
    run(world, oracle, arrows={"caption->rgb": {"via": ("semseg", "clip")}})
    assert oracle.asked[-1] == ({"caption"}, ("semseg", "clip", "rgb"), True)
    with pytest.raises(ValueError, match="Allowed: rgb->depth"):
        EvaluationConfig(arrows={"caption->rbg": {}})


@pytest.mark.parametrize(("count", "seed"), itertools.product([2, 3, 50], [0, 1]))
def test_no_sample_keeps_its_own_input_when_shuffled(count, seed):
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert all(order != np.arange(count))


def test_specks_are_no_shapes():
    classes = np.ones((20, 20), np.uint8)
    classes[0, 0], classes[5:10, 5:10] = 2, 3
    assert shown_shapes(classes, least_share=0.005) == {"box"}
