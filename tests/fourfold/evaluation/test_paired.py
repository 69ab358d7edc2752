"""Replicates for paired comparisons: equal weights for all models, and a digest of what they were measured on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fourfold.data.shards import ShardSet
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import evaluate
from fourfold.evaluation.paired import PairedScores
from fourfold.evaluation.samples import load_samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, TaskContext
from fourfold.metrics.statistics import mean
from tests.fourfold.evaluation.small_scenes import Encoder, Oracle, evaluation_data

TASK = PREDICTION_TASKS.get("rgb->depth")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return evaluation_data(tmp_path_factory.mktemp("world"), val=8, test=12)


@pytest.fixture(scope="module")
def samples(world):
    return load_samples(world, "test", {"depth", "semseg", "det"}, 12)


def scores_of(samples, values, replicates=100, task=TASK, encoder="", **settings):
    paired = PairedScores(replicates, encoder)
    context = TaskContext(samples, None, EvaluationConfig(**settings))
    paired.add(paired.measure(task, context, {"value": {"abs_rel": mean(values)}}), len(samples))
    return paired.metrics[f"{task.pair}/abs_rel"]


def test_replicates_of_two_models_weight_the_samples_alike(samples):
    """A model that is better by 1 on every sample is better by exactly 1 in every replicate; independent ones would vary."""
    values_N = np.random.default_rng(0).normal(size=12)
    ours, theirs = (np.array(scores_of(samples, v)["replicates"]) for v in (values_N + 1, values_N))
    np.testing.assert_allclose(ours - theirs, 1, atol=1e-4)
    assert theirs.std() > 0.1


def test_fewer_replicates_are_the_first_ones_of_more(samples):
    values_N = np.random.default_rng(0).normal(size=12)
    few, many = (scores_of(samples, values_N, count)["replicates"] for count in (20, 50))
    assert many[:20] == few and len(set(many)) > 40


def test_replicates_are_resampled_means(samples):
    """The mean of a resampling of indicator values is a multiple of 1/N with the standard deviation of the bootstrap."""
    values_N = np.array([1.0] * 3 + [0.0] * 9)
    found = np.array(scores_of(samples, values_N, 4000)["replicates"])
    np.testing.assert_allclose(found * 12, np.round(found * 12), atol=1e-4)
    assert found.mean() == pytest.approx(0.25, abs=0.01)
    assert found.std() == pytest.approx(np.sqrt(0.25 * 0.75 / 12), rel=0.05)


def test_digest_of_the_data_follows_what_a_metric_depends_on(samples):
    values_N = np.zeros(12)
    base = scores_of(samples, values_N)["data"]
    depth, other = samples.truth["depth"].copy(), dict(samples.labels)
    depth[0, 0, 0] += 1
    other["det"] = list(reversed(other["det"]))
    assert scores_of(samples, values_N + 1)["data"] == base  # another model
    assert scores_of(replace(samples, labels=other), values_N, encoder="x")["data"] == base  # depth reads neither
    changed = [
        scores_of(replace(samples, truth={**samples.truth, "depth": depth}), values_N)["data"],
        scores_of(replace(samples, rgb=samples.rgb + 1), values_N)["data"],
        scores_of(replace(samples, keys=samples.keys[::-1]), values_N)["data"],
        scores_of(samples, values_N, min_shown_share=0.5)["data"],
    ]
    assert len({base, *changed}) == 5


def test_metrics_that_use_the_text_encoder_depend_on_it(samples):
    zero_shot = next(task for _, task in PREDICTION_TASKS.items() if task.needs_encoder and task.source == "rgb")
    found = {scores_of(samples, np.zeros(12), task=zero_shot, encoder=e)["data"] for e in ("first", "second")}
    assert len(found) == 2


def test_evaluation_keeps_replicates_of_every_metric_whatever_its_seed(world):
    found = []
    for seed in (0, 1):
        paired = PairedScores(30, "encoder")
        config = EvaluationConfig(replicates=30)
        table = evaluate(Oracle(world), Encoder(), world, config, seed, paired=paired)["out_of_the_box"]
        found.append(paired.evidence("model"))
        names = {f"{pair}/{metric}" for pair, metrics in table.items() for metric in metrics}
        assert set(found[-1]["metrics"]) == names and found[-1]["samples"] == 12
        for pair, metrics in table.items():
            for metric, entry in metrics.items():
                kept = found[-1]["metrics"][f"{pair}/{metric}"]
                assert (kept["value"], kept["baseline"]) == (entry["value"], entry["trivial"])
                assert len(kept["replicates"]) == 30
    depth = [evidence["metrics"]["rgb->depth/abs_rel"] for evidence in found]
    assert depth[0]["baseline_replicates"] == depth[1]["baseline_replicates"] and depth[0]["lower_is_better"]
    assert not found[0]["metrics"]["rgb->semseg/miou"]["lower_is_better"]


def test_labels_that_stand_in_for_the_truth_count(world):
    """Without exact truth, other labels of the teachers are another reference."""
    labels_only = load_samples(replace(world, truth=None), "test", {"depth", "semseg"}, 12)
    assert isinstance(world.labels, ShardSet)
    changed = replace(labels_only, truth={**labels_only.truth, "depth": labels_only.truth["depth"] + 1})
    digests = [scores_of(s, np.zeros(12))["data"] for s in (labels_only, changed)]
    assert all(a != b for a, b in itertools.combinations(digests, 2))
