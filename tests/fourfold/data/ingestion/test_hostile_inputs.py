"""A few generated hostile inputs, and the judgment about them: `tests/torture/hostile_inputs.py` runs hundreds."""

import importlib
import os
import sys
import time
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[3] / "torture"
GOOD = ["good one", "good two"]


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(TORTURE))
    yield importlib.import_module("hostile_inputs")
    for name in ("hostile_inputs", "hostile_makers"):
        sys.modules.pop(name, None)


def test_generated_hostile_inputs_cause_no_fault(program, tmp_path):
    results = program.run_all(seed=7, count=12, folder=tmp_path)
    assert len(results) == 12 and {what.partition(":")[0] for what, _ in results.values()} > {"tar", "image", "table", "link"}
    assert {number: result for number, result in results.items() if result[1]} == {}


def test_faults_are_found(program):
    made = program.Hostile("x", samples=1)
    outcome = program.Outcome

    def found(**values):
        return " ".join(program.faults(made, GOOD, outcome(**values)))

    assert found(seen=3, captions=GOOD) == found(error="One clear line.") == ""
    assert "silent loss: 2 of 3" in found(seen=2, captions=GOOD) and "silent loss" in found(seen=2, others=1, captions=GOOD)
    assert "4 samples" in found(seen=4, captions=GOOD)
    assert "1 good samples were lost" in found(seen=3, captions=GOOD[:1])
    assert "made-up caption 'None'" in found(seen=3, captions=[*GOOD, "None"])
    assert "crash: KeyError" in found(crash="KeyError: 'file'") and "unclear error" in found(error="two\nlines")
    made.is_exact = False  # damage may hide samples behind one counted loss, never behind none
    assert found(seen=2, others=1, captions=GOOD) == "" and "silent loss" in found(seen=2, captions=GOOD)


def test_hang_and_death_are_found_and_the_other_inputs_still_run(program, tmp_path, monkeypatch):
    def run_one(seed, number, folder):
        if number == 1:
            time.sleep(60)
        if number == 2:
            os._exit(3)
        return "fine", []

    monkeypatch.setattr(program, "run_one", run_one)
    results = program.run_all(0, 4, tmp_path, limit=0.5)
    assert results[0] == results[3] == ("fine", [])
    assert results[1][1] == ["hang: more than 0.5 s"] and results[2][1] == ["crash: the process died"]
