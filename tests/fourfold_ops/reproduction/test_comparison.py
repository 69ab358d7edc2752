"""When a record holds, and how the reports show what differs."""

from dataclasses import replace

import pytest
from offline import loads

from fourfold_ops.reproduction.archives import KeyDifference
from fourfold_ops.reproduction.comparison import DIFFERS, IDENTICAL, WITHIN, Comparison
from fourfold_ops.reproduction.environment import EnvironmentChange
from fourfold_ops.reproduction.inputs import InputResult, ParameterChange
from fourfold_ops.reproduction.metrics import MetricResult
from fourfold_ops.reproduction.outputs import FileChange, OutputResult
from fourfold_ops.reproduction.page import html
from fourfold_ops.reproduction.text import lines

SAME = OutputResult("a", "data/a", "same", "1.dir", "1.dir", num_files=2)
CHANGED = FileChange("data/b/<script>.tar", "different", "SHA-256 1…, digests.json has 2…", KeyDifference(("k<1>",), 3))
OTHER = OutputResult("b", "data/b", "different", "1.dir", "2.dir", (CHANGED,), 1, 2)
CLOSE = MetricResult("loss", 1.0, 1.01, 0.01, 0.02, True)
FAR = MetricResult("score", 1.0, 2.0, 1.0, 0.02, False)
MACHINE = EnvironmentChange("machine", "b.precision", "bf16", "fp32")
PACKAGE = EnvironmentChange("package", "torch", "1", "2")
BASE = Comparison("HEAD", "c" * 40, "", "kedro run", ("a", "b"), (SAME, OTHER), metrics=(CLOSE,), environment=(MACHINE,))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"outputs": (SAME,)}, IDENTICAL),
        ({"outputs": (SAME,), "environment": (PACKAGE,)}, IDENTICAL),
        ({}, WITHIN),
        ({"environment": (PACKAGE,)}, DIFFERS),  # the same machine rounds in the same way
        ({"environment": ()}, DIFFERS),
        ({"metrics": (CLOSE, FAR)}, DIFFERS),
        ({"metrics": ()}, DIFFERS),  # nothing shows that it is close
        ({"command": ""}, DIFFERS),  # a verification compares bytes
        ({"outputs": (SAME, replace(OTHER, status="missing"))}, DIFFERS),
        ({"outputs": (SAME,), "contradictions": ("x",)}, DIFFERS),
        ({"outputs": (SAME,), "parameters": (ParameterChange("f", "seed", 0, 1),)}, DIFFERS),
        ({"outputs": (SAME,), "inputs": (InputResult("src", ("a",), "different", "1", "2"),)}, DIFFERS),
        ({"outputs": (SAME,), "inputs": (InputResult("s3://x", ("a",), "not checked", "1", "a URL"),)}, IDENTICAL),
    ],
)
def test_verdict(changes, verdict):
    comparison = replace(BASE, **changes)
    assert comparison.verdict == verdict and comparison.holds == (verdict != DIFFERS)
    assert comparison.as_json()["verdict"] == verdict


def test_reports_show_everything_that_differs():
    comparison = replace(BASE, metrics=(CLOSE, FAR), first_node="tune", notes=("A note.",), environment=(MACHINE, PACKAGE))
    text, page = "\n".join(lines(comparison)), html(comparison)
    assert loads(page) == []
    assert "data/b/<script>.tar: different (3 keys: k<1> and 2 more; SHA-256 1…, digests.json has 2…)" in text
    assert "<script>" not in page and "data/b/&lt;script&gt;.tar" in page and "k&lt;1&gt;" in page
    for part in ("score", "loss", "b.precision", "bf16", "torch", "tune", "A note.", "Not reproduced"):
        assert part in text and part in page
    assert text.splitlines()[-1] == "Not reproduced: HEAD recorded other content."
    (row,) = [line.split() for line in text.splitlines() if line.startswith("score")]
    assert row == ["score", "1", "2", "+1", "0.02", "too", "large"]
