"""The gate on metrics, against scipy's paired bootstrap, exact cases and simulated noise."""

import numpy as np
import pytest
import scipy.stats

from fourfold_ops.errors import UserError
from fourfold_ops.registry.evidence import Evidence, MetricEvidence, parse_evidence
from fourfold_ops.registry.gate import BETTER, WITHIN, WORSE, Gain, Gate, comparison, gain_of, judge, read_gate

SAMPLES, REPLICATES = 200, 2000
WEIGHTS_RN = np.random.default_rng(7).multinomial(SAMPLES, np.full(SAMPLES, 1 / SAMPLES), REPLICATES) / SAMPLES


def metric(values_N, lower=False, data="d", baseline=None, weights_RN=WEIGHTS_RN):
    """The mean over samples as evidence."""
    replicates = tuple(map(float, weights_RN @ values_N))
    trivial = {} if baseline is None else {"baseline": float(baseline.mean())}
    if baseline is not None:
        trivial["baseline_replicates"] = tuple(map(float, weights_RN @ baseline))
    return MetricEvidence(value=float(values_N.mean()), lower_is_better=lower, data=data, replicates=replicates, **trivial)


def evidence(**metrics):
    return Evidence(subject="m", samples=SAMPLES, metrics=metrics)


def gate(direction="higher", names=("score",), **settings):
    rule = {key: settings.pop(key) for key in ("min_gain", "max_loss") if key in settings}
    rules = {name: {"direction": direction, "max_loss": 0.0, **rule} for name in names}
    return read_gate({"metrics": rules, **settings})


def verdicts(findings):
    return {finding.name: finding.passed for finding in findings}


def test_interval_is_that_of_scipys_paired_bootstrap():
    rng = np.random.default_rng(1)
    theirs = rng.normal(size=SAMPLES)
    ours = theirs + rng.normal(0.05, 0.3, SAMPLES)  # correlated: unpaired intervals would be four times as wide
    gain = gain_of(gate(), "score", evidence(score=metric(ours)), evidence(score=metric(theirs)))
    wanted = scipy.stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (gain.low, gain.high) == pytest.approx((wanted.low, wanted.high), abs=0.006)
    assert gain.high - gain.low < 0.1


@pytest.mark.parametrize("lower", [False, True])
def test_better_worse_and_equal_models_in_either_direction(lower):
    base = np.random.default_rng(2).normal(size=SAMPLES)
    sign = -1 if lower else 1
    wanted = {0.1: (True, BETTER), 0.0: (False, WITHIN), -0.1: (False, WORSE)}
    for shift, (passed, verdict) in wanted.items():
        candidate, champion = evidence(score=metric(base + sign * shift, lower)), evidence(score=metric(base, lower))
        settings = gate("lower" if lower else "higher")
        findings = judge(settings, candidate, champion)
        assert all(f.passed for f in findings) == passed
        assert gain_of(settings, "score", candidate, champion).verdict == verdict
        # an equal model is no loss, but no improvement either
        assert verdicts(findings) == {"score": shift >= 0, "improvement": shift > 0}


def test_a_loss_within_the_limit_is_allowed_if_another_metric_gains():
    base = np.random.default_rng(3).normal(size=SAMPLES)
    candidate = evidence(first=metric(base + 0.2), second=metric(base - 0.05))
    champion = evidence(first=metric(base), second=metric(base))
    for max_loss, passed in ((0.06, True), (0.04, False)):
        findings = verdicts(judge(gate(names=("first", "second"), max_loss=max_loss), candidate, champion))
        assert findings == {"first": True, "second": passed, "improvement": True}


def test_minimum_gain_is_required_of_the_interval():
    rng = np.random.default_rng(4)
    base = rng.normal(size=SAMPLES)
    ours = base + rng.normal(0.1, 0.1, SAMPLES)  # interval about 0.086 to 0.114
    for min_gain, passed in ((0.05, True), (0.1, False)):
        findings = verdicts(judge(gate(min_gain=min_gain), evidence(score=metric(ours)), evidence(score=metric(base))))
        assert findings == {"score": passed, "improvement": True}


def test_noise_is_rarely_an_improvement():
    """Models of equal quality: of 100 lucky or unlucky ones, about 2.5 may look better on any of eight metrics."""
    rng, names = np.random.default_rng(5), [f"m{i}" for i in range(8)]
    settings, few_RN = gate(names=names, max_loss=10.0), WEIGHTS_RN[:640]
    better = 0
    for _ in range(100):
        champion = {name: rng.normal(size=SAMPLES) for name in names}
        candidate = {name: values + rng.normal(0, 0.5, SAMPLES) for name, values in champion.items()}
        pair = [evidence(**{n: metric(v, weights_RN=few_RN) for n, v in models.items()}) for models in (candidate, champion)]
        better += verdicts(judge(settings, *pair))["improvement"]
    assert better <= 8  # uncorrected, about 18 would


def test_first_version_must_beat_the_trivial_answer_everywhere():
    base = np.random.default_rng(6).normal(size=SAMPLES)
    good, bad = metric(base + 0.3, baseline=base), metric(base, baseline=base)
    names = ("first", "second")
    assert verdicts(judge(gate(names=names), evidence(first=good, second=good), None)) == {"first": True, "second": True}
    assert verdicts(judge(gate(names=names), evidence(first=good, second=bad), None)) == {"first": True, "second": False}


def test_what_cannot_be_compared_is_refused_with_the_reason():
    base = np.random.default_rng(8).normal(size=SAMPLES)
    ours = metric(base + 1, baseline=base)
    few = metric(base, weights_RN=WEIGHTS_RN[:39])
    cases = {
        "no such metric": (evidence(other=ours), evidence(score=ours)),
        "champion has no such metric": (evidence(score=ours), evidence(other=ours)),
        "other test data or settings: d, champion: e": (evidence(score=ours), evidence(score=metric(base, data="e"))),
        "39 replicates, at least 40 are needed": (evidence(score=ours), evidence(score=few)),
        "no trivial answer": (evidence(score=metric(base)), None),
        "the evaluation says lower": (evidence(score=metric(base, lower=True)), evidence(score=ours)),
    }
    for reason, (candidate, champion) in cases.items():
        finding = judge(gate(), candidate, champion)[0]
        assert not finding.passed and reason in finding.found


def test_comparison_has_every_metric_of_either_side():
    base = np.random.default_rng(10).normal(size=SAMPLES)
    metrics = {"better": base + 0.1, "equal": base, "worse": base - 0.1, "ours": base}
    ours = evidence(**{name: metric(values, baseline=base) for name, values in metrics.items()})
    theirs = evidence(**dict.fromkeys(("better", "equal", "worse", "theirs"), metric(base)))
    found = dict(comparison(gate(), ours, theirs))
    verdicts = {name: gain.verdict for name, gain in found.items() if isinstance(gain, Gain)}
    assert verdicts == {"better": BETTER, "equal": WITHIN, "worse": WORSE}
    assert found["ours"] == "the champion has no such metric" and found["theirs"] == "the version has no such metric"
    trivial = {name: gain.verdict for name, gain in comparison(gate(), ours, None)}
    assert trivial == {**verdicts, "ours": WITHIN}


def test_undefined_replicates_are_left_out_in_pairs():
    base = np.random.default_rng(9).normal(size=SAMPLES)
    ours, theirs = metric(base + 0.1), metric(base)
    holes = MetricEvidence(**{**ours.model_dump(), "replicates": (None, *ours.replicates[1:])})
    gain = gain_of(gate(), "score", evidence(score=holes), evidence(score=theirs))
    assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "metrics: Field required"),
        ({"metrics": {}}, "metrics: "),
        ({"metrics": {"m": {"direction": "up", "max_loss": 0}}}, "metrics.m.direction"),
        ({"metrics": {"m": {"direction": "lower"}}}, "metrics.m.max_loss: Field required"),
        ({"metrics": {"m": {"direction": "lower", "max_loss": -1}}}, "metrics.m.max_loss"),
        ({"metrics": {"m": {"direction": "lower", "max_loss": 0}}, "require": ["clean"]}, "require.0"),
        ({"metrics": {"m": {"direction": "lower", "max_loss": 0}}, "confidense": 0.9}, "confidense"),
    ],
)
def test_wrong_gate_is_one_clear_error(values, text):
    with pytest.raises(UserError, match="is not a valid gate") as caught:
        read_gate(values)
    assert text in str(caught.value) and "\n" not in str(caught.value) and "promote.md" in caught.value.remedy


def test_digest_of_the_gate_follows_every_setting():
    gates = [gate(), gate(max_loss=0.1), gate(min_gain=0.1), gate("lower"), gate(confidence=0.9), gate(min_better=0)]
    assert len({one.digest() for one in gates}) == 6 and gate().digest() == gates[0].digest()
    assert isinstance(gates[0], Gate)


def test_evidence_of_another_form_is_refused():
    with pytest.raises(UserError, match=r"promotion.json is no evidence for a promotion \(metrics: Field required\)"):
        parse_evidence({"subject": "m", "samples": 1}, "promotion.json")
