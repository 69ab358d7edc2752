"""A plan as text and as JSON."""

import json
from dataclasses import replace

import pytest

from fourfold_ops.planning.changes import Change
from fourfold_ops.planning.checks import Problem, readable
from fourfold_ops.planning.plan import FolderPlan, StagePlan
from fourfold_ops.planning.project import Storage
from fourfold_ops.planning.text import WholePlan, duration, long_text, short_text

TRAINING = StagePlan(
    "training",
    (Change("parameter", "training.steps", "4", "8"), Change("stage", "making")),
    (
        FolderPlan("data/2/model", "make", "data/2/.superseded/model-0a"),
        FolderPlan("data/2/a", "keep"),
        FolderPlan("data/2/b", "keep"),
    ),
    seconds=250,
    peak_bytes=1_200_000_000,
    size=3_000_000,
)
DRAWING = StagePlan("drawing", (Change("code", "a.draw", "0a", "changed"),), (FolderPlan("data/3", "keep"),), seconds=40)
WHOLE = WholePlan(
    "kedro run",
    [StagePlan("making", ()), TRAINING, DRAWING],
    problems=[Problem("The server does not answer. Start it.", 78)],
    notes=["The remote is away."],
    needed=6_000_000,
    free=9_000_000_000,
    jobs=["train-1: 2 pods"],
)
TEXT = """
Plan of `kedro run`

  making    reuse
  training  run    parameter training.steps: 4 → 8
                   making runs before
                   makes data/2/model again; the present content moves to data/2/.superseded/model-0a
                   keeps data/2/a, data/2/b
                   last time 4 min, 1.2 GB of memory, 3.0 MB of results
  drawing   run    module a.draw changed
                   keeps data/3
                   seconds: it finds its work done (which took 40 s)

2 of 3 stages run, about 4 min; 1.2 GB of memory; about 6.0 MB of disk, 9.0 GB free.
Jobs that would be submitted:
  train-1: 2 pods
Note: The remote is away.
Cannot run: The server does not answer. Start it.
"""
SHORT = """
Plan:
  training: parameter training.steps: 4 → 8; making runs before
  drawing: module a.draw changed
  unchanged: making
  2 of 3 stages run, about 4 min; 1.2 GB of memory; about 6.0 MB of disk, 9.0 GB free.
"""


def test_texts():
    assert long_text(WHOLE) == TEXT.strip()
    assert short_text(WHOLE) == SHORT.strip()
    assert WHOLE.exit_code == 78
    idle = WholePlan("kedro run", [StagePlan("making", ())])
    assert (idle.exit_code, long_text(idle).splitlines()[-1]) == (0, "Nothing to do: every result is up to date.")


def test_the_storage_of_the_configured_data_is_shown_before_the_sum():
    whole = replace(WHOLE, storage=Storage(("Storage:", "  a table"), 7, ("making",), values={"images": 3}))
    assert long_text(whole) == TEXT.strip().replace("\n\n2 of 3", "\n\nStorage:\n  a table\n\n2 of 3")
    assert whole.as_json()["storage"] == {"images": 3, "needed_bytes": 7}
    assert WHOLE.as_json()["storage"] is None


def test_what_depends_on_inputs_is_an_upper_bound():
    folders = (FolderPlan("data/2", "maybe", "data/.superseded/2-0a"),)
    text = long_text(WholePlan("kedro run", [StagePlan("training", (Change("stage", "making"),), folders, seconds=50)]))
    assert "makes data/2 again unless its inputs come out as they were; the present content moves to" in text
    assert "at most about 50 s" in text


def test_json_has_everything():
    found = json.loads(json.dumps(WHOLE.as_json()))
    assert [stage["action"] for stage in found["stages"]] == ["reuse", "run", "run"]
    assert found["stages"][1]["changes"][0] == {
        "kind": "parameter",
        "name": "training.steps",
        "old": "4",
        "new": "8",
        "text": "parameter training.steps: 4 → 8",
    }
    assert found["seconds"] == 250 and found["problems"][0]["exit_code"] == 78 and found["jobs"] == ["train-1: 2 pods"]


def test_many_folders_are_counted():
    folders = tuple(FolderPlan(f"data/{number}", "make") for number in range(9))
    stage = StagePlan("making", (Change("unknown", "making"),), folders)
    assert "makes 9 folders again" in long_text(WholePlan("kedro run", [stage]))


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")]
)
def test_durations(value, text):
    assert duration(value) == text


def test_bytes():
    assert [readable(value) for value in (0, 999, 1000, 1.26e9)] == ["0 B", "999 B", "1.0 kB", "1.3 GB"]
