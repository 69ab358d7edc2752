"""What the registry knows about the model of a run: its metrics beside those of the trivial answer and of the champion."""

import os
from collections.abc import Mapping
from typing import Any

from fourfold_ops.registry.evidence import Evidence, load_evidence
from fourfold_ops.registry.gate import Gain, Gate, gain_of, problem_of, read_gate
from fourfold_ops.registry.versions import CHAMPION, PARENT, ModelVersions
from fourfold_ops.run_summary.facts import MetricFact, ModelFact, SuiteFact
from fourfold_ops.tracking.run import REGISTERED_MODEL

MAX_METRICS = 8  # without a gate that names them
SUITE = "quality/"


def stage_runs(client: Any, parent: str) -> list[Any]:
    """Return the stage runs of a parent run."""
    experiment = client.get_run(parent).info.experiment_id
    return list(client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'"))


def suites_of(runs: list[Any]) -> list[SuiteFact]:
    """Return the data checks that some runs recorded, by name."""
    found = {}
    for run in runs:
        for key, value in run.data.metrics.items():
            if key.startswith(SUITE) and key.endswith("/expectations"):
                name = key.removeprefix(SUITE).removesuffix("/expectations")
                found[name] = SuiteFact(name, int(value), int(run.data.metrics.get(f"{SUITE}{name}/failed", 0)))
    return [found[name] for name in sorted(found)]


def registered_by(client: Any, runs: list[Any], gate: Mapping[str, Any]) -> tuple[ModelFact | None, list[MetricFact]]:
    """Return the model that some runs registered, and its metrics; (None, []) without a model.

    Args:
        client: of MLflow.
        runs: the stage runs of one parent run.
        gate: content of promotion.yml, which names the metrics; {}: the first ones of the evaluation.
    """
    run = next((run for run in runs if run.data.tags.get(REGISTERED_MODEL)), None)
    if run is None:
        return None, []
    _, name, number = run.data.tags[REGISTERED_MODEL].split("/")
    versions = ModelVersions(client, name)
    aliases = tuple(sorted(alias for alias, of in versions.aliases.items() if of == number))
    model = ModelFact(name, number, aliases, versions.aliases.get(CHAMPION, ""))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    ours = load_evidence(client, run.info.run_id)
    if ours is None:
        return model, []
    theirs = versions.evidence(versions.get(CHAMPION)) if model.champion and not model.is_champion else None
    return model, metrics_of(ours, theirs, read_gate(gate) if gate else None)


def metrics_of(ours: Evidence, theirs: Evidence | None, gate: Gate | None) -> list[MetricFact]:
    """Return the metrics of a gate beside those of the champion; without a gate, the first ones, without verdicts."""
    wanted = list(gate.metrics) if gate else list(ours.metrics)[:MAX_METRICS]
    facts = []
    for name in wanted:
        if (metric := ours.metrics.get(name)) is None:
            continue
        champion = theirs.metrics.get(name) if theirs else None
        same_data = champion is not None and champion.data == metric.data
        facts.append(
            MetricFact(
                name=name,
                lower_is_better=metric.lower_is_better,
                value=metric.value,
                trivial=metric.baseline,
                champion=champion.value if champion and same_data else None,
                verdict=_verdict(name, ours, theirs, gate),
            )
        )
    return facts


def _verdict(name: str, ours: Evidence, theirs: Evidence | None, gate: Gate | None) -> str:
    if theirs is None or gate is None:
        return ""
    if name in theirs.metrics and theirs.metrics[name].data != ours.metrics[name].data:
        return "other test data"
    if problem_of(gate, name, ours, theirs):
        return "not comparable"
    gain: Gain = gain_of(gate, name, ours, theirs)
    return gain.verdict
