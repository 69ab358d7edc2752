"""The gate of a promotion (`conf/*/promotion.yml`): which differences of metrics are allowed, required, or noise."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fourfold_ops.errors import UserError
from fourfold_ops.registry.evidence import Evidence, MetricEvidence

Requirement = Literal["clean_tree", "committed_lock", "whole_evaluation", "this_model", "data_checks", "reproduced"]
BETTER, WITHIN, WORSE = "better", "within the interval", "worse"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricRule(_Settings):
    """What one metric must do; a gain is a difference in the good direction, in the unit of the metric."""

    direction: Literal["higher", "lower"]  # which values are better
    max_loss: float = Field(ge=0)  # the interval of the gain must lie above -max_loss
    min_gain: float | None = Field(default=None, ge=0)  # the interval of the gain must lie above min_gain; None: no minimum


class Gate(_Settings):
    """The conditions under which a version becomes champion."""

    confidence: float = Field(0.95, ge=0.5, lt=1)  # of the intervals of gains
    min_better: int = Field(1, ge=0)  # number of metrics that must be better beyond noise
    require: tuple[Requirement, ...] = ()
    metrics: dict[str, MetricRule] = Field(min_length=1)

    @property
    def min_replicates(self) -> int:
        """Number of replicates that a quantile needs which is corrected for the number of metrics."""
        return math.ceil(round(2 * len(self.metrics) / (1 - self.confidence), 6))

    def digest(self) -> str:
        """Return the SHA-256 of the gate as canonical JSON."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def read_gate(values: Mapping[str, Any], where: str = "conf/base/promotion.yml") -> Gate:
    """Return the validated gate; raises UserError that names every wrong setting."""
    try:
        return Gate.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(
            f"{where} is not a valid gate: {problems}.", "Correct these settings (docs/guides/promote.md)."
        ) from None


@dataclass(frozen=True)
class Finding:
    """One condition of the gate: what is required, what was found."""

    name: str
    required: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Gain:
    """How a metric of a version differs from its reference; positive values are better."""

    metric: str
    reference: float
    value: float
    low: float  # interval of the gain at the gate's confidence
    high: float
    low_corrected: float  # the same at the confidence that is corrected for the number of metrics
    high_corrected: float

    @property
    def verdict(self) -> str:
        """Whether the difference is larger than the noise of the test samples."""
        if self.low_corrected > 0:
            return BETTER
        return WORSE if self.high_corrected < 0 else WITHIN


def judge(gate: Gate, candidate: Evidence, champion: Evidence | None) -> list[Finding]:
    """Return the findings about all metrics: against the champion, or against the trivial answers if there is no champion."""
    findings, gains = [], []
    for name, rule in gate.metrics.items():
        problem = problem_of(gate, name, candidate, champion)
        if problem:
            findings.append(Finding(name, "comparable", problem, False))
            continue
        gain = gain_of(gate, name, candidate, champion)
        gains.append(gain)
        findings.append(_finding(rule, gain, is_first=champion is None))
    if champion is not None:
        better = [gain.metric for gain in gains if gain.verdict == BETTER]
        wanted = f"at least {gate.min_better} metrics better beyond noise"
        findings.append(Finding("improvement", wanted, ", ".join(better) or "none", len(better) >= gate.min_better))
    return findings


def comparison(gate: Gate, ours: Evidence, theirs: Evidence | None) -> list[tuple[str, Gain | str]]:
    """Return, for every metric of either side, its gain, or why it cannot be compared.

    Args:
        gate: its confidence counts, corrected for the number of all metrics.
        ours: of the version.
        theirs: of the reference; None: the trivial answers.
    """
    known = {**(theirs.metrics if theirs else {}), **ours.metrics}
    rules = {
        name: MetricRule(direction="lower" if metric.lower_is_better else "higher", max_loss=0)
        for name, metric in sorted(known.items())
    }
    wide = gate.model_copy(update={"metrics": rules})
    return [(name, problem_of(wide, name, ours, theirs) or gain_of(wide, name, ours, theirs)) for name in rules]


def problem_of(gate: Gate, name: str, candidate: Evidence, champion: Evidence | None) -> str:
    """Return why a metric cannot be compared; "" if it can."""
    ours, rule = candidate.metrics.get(name), gate.metrics.get(name)
    if ours is None:
        return "the version has no such metric"
    if rule is not None and (rule.direction == "lower") != ours.lower_is_better:
        better = "lower" if ours.lower_is_better else "higher"
        return f"the gate says that {rule.direction} is better, the evaluation says {better}"
    if champion is None:
        theirs: Sequence[float | None] | None = ours.baseline_replicates if ours.baseline is not None else None
        if theirs is None:
            return "there is no trivial answer to compare with"
    else:
        other = champion.metrics.get(name)
        if other is None:
            return "the champion has no such metric"
        if other.data != ours.data:
            return f"other test data or settings: {ours.data[:8]}, champion: {other.data[:8]}"
        theirs = other.replicates
    usable = len(_pairs(ours.replicates, theirs))
    return "" if usable >= gate.min_replicates else f"{usable} replicates, at least {gate.min_replicates} are needed"


def gain_of(gate: Gate, name: str, candidate: Evidence, champion: Evidence | None) -> Gain:
    """Return the paired difference of a metric that has no `problem_of`."""
    ours = candidate.metrics[name]
    reference, theirs = _reference(ours, None if champion is None else champion.metrics[name])
    sign = -1 if ours.lower_is_better else 1
    pairs = _pairs(ours.replicates, theirs)
    gains_R = sign * (pairs[:, 0] - pairs[:, 1])
    tail = (1 - gate.confidence) / 2
    corrected = tail / len(gate.metrics)
    ends = np.quantile(gains_R, [tail, 1 - tail, corrected, 1 - corrected])
    return Gain(name, reference, ours.value, *map(float, ends))


def _reference(ours: MetricEvidence, other: MetricEvidence | None) -> tuple[float, Sequence[float | None]]:
    if other is not None:
        return other.value, other.replicates
    assert ours.baseline is not None and ours.baseline_replicates is not None
    return ours.baseline, ours.baseline_replicates


def _pairs(ours: Sequence[float | None], theirs: Sequence[float | None]) -> np.ndarray:
    """Return float64 (R, 2): the replicates that both have; the first ones of a longer list belong to those of a shorter."""
    both = [(a, b) for a, b in zip(ours, theirs, strict=False) if a is not None and b is not None]
    return np.array(both, dtype=np.float64).reshape(-1, 2)


def _finding(rule: MetricRule, gain: Gain, is_first: bool) -> Finding:
    name = "trivial answer" if is_first else "champion"
    found = f"{gain.value:.4g}, {name} {gain.reference:.4g}: gain {gain.low:+.4g} to {gain.high:+.4g}, {gain.verdict}"
    if is_first:
        return Finding(gain.metric, "better than the trivial answer", found, gain.low > 0)
    required = f"loss at most {rule.max_loss:.4g}"
    passed = gain.low >= -rule.max_loss
    if rule.min_gain is not None:
        required, passed = f"gain above {rule.min_gain:.4g}", passed and gain.low > rule.min_gain
    return Finding(gain.metric, required, found, passed)
