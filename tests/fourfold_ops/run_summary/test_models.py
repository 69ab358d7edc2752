"""What the summary says about a registered model: its metrics beside the trivial answer and the champion."""

import pytest

from fourfold_ops.registry.evidence import Evidence
from fourfold_ops.registry.gate import BETTER, WITHIN, WORSE, read_gate
from fourfold_ops.run_summary.models import metrics_of, registered_by, stage_runs, suites_of
from fourfold_ops.tracking.run import REGISTERED_MODEL


def evidence(value: float, data: str = "d", replicates: int = 400) -> Evidence:
    spread = [value + (index % 5 - 2) * 0.01 for index in range(replicates)]
    metric = {"value": value, "baseline": 0.1, "lower_is_better": False, "data": data, "replicates": spread}
    return Evidence.model_validate({"subject": "s", "samples": 9, "metrics": {"a/b": metric, "c": metric}})


GATE = read_gate(
    {"metrics": {"a/b": {"direction": "higher", "max_loss": 0.1}, "absent": {"direction": "lower", "max_loss": 1}}}
)


@pytest.mark.parametrize(("champion", "verdict"), [(0.5, BETTER), (0.7, WITHIN), (0.9, WORSE)])
def test_a_difference_counts_if_it_is_larger_than_noise(champion, verdict):
    theirs = evidence(champion)
    if verdict == WITHIN:  # paired replicates differ in both directions
        rows = theirs.metrics["a/b"].replicates
        swapped = theirs.metrics["a/b"].model_copy(update={"replicates": tuple(reversed(rows))})
        theirs = theirs.model_copy(update={"metrics": {"a/b": swapped}})
    (found,) = metrics_of(evidence(0.7), theirs, GATE)  # what the evaluation lacks is left out
    assert (found.name, found.value, found.trivial, found.champion, found.verdict) == ("a/b", 0.7, 0.1, champion, verdict)


def test_other_test_data_and_few_replicates_have_no_verdict():
    (other,) = metrics_of(evidence(0.7), evidence(0.5, data="other"), GATE)
    assert other.champion is None and other.verdict == "other test data"
    (few,) = metrics_of(evidence(0.7, replicates=5), evidence(0.5, replicates=5), GATE)
    assert few.champion == 0.5 and few.verdict == "not comparable"


def test_without_a_gate_the_first_metrics_are_shown():
    assert [metric.name for metric in metrics_of(evidence(0.7), None, None)] == ["a/b", "c"]


def test_model_metrics_and_checks_come_from_the_stage_runs(shelf):
    champion = shelf.add(0.5)
    shelf.client.set_registered_model_alias("echo", "champion", champion)
    number = shelf.add(0.9)
    run = shelf.client.get_run(shelf.client.get_model_version("echo", number).run_id)
    shelf.client.set_tag(run.info.run_id, REGISTERED_MODEL, f"models:/echo/{number}")
    for key, value in (("quality/numbers/expectations", 4), ("quality/numbers/failed", 1)):
        shelf.client.log_metric(run.info.run_id, key, value)
    runs = stage_runs(shelf.client, run.data.tags["mlflow.parentRunId"])
    model, metrics = registered_by(shelf.client, runs, {"metrics": {"score": {"direction": "higher", "max_loss": 0.01}}})
    assert model is not None and (model.number, model.champion, model.aliases) == (number, champion, ("candidate",))
    assert [(metric.name, metric.verdict) for metric in metrics] == [("score", BETTER)]
    assert metrics[0].champion == pytest.approx(metrics[0].value - 0.4)
    assert [(suite.name, suite.failed) for suite in suites_of(runs)] == [("numbers", 1)]
    assert registered_by(shelf.client, [one for one in runs if one.info.run_id != run.info.run_id], {}) == (None, [])
