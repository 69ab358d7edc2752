"""The order in which steps start."""

from fourfold_ops.kubernetes.driver.schedule import Schedule, State
from fourfold_ops.kubernetes.plan.settings import Resources
from fourfold_ops.kubernetes.plan.steps import Step

NEEDS = {"ingest": (), "label": ("ingest",), "tokenize": ("ingest",), "train": ("label", "tokenize"), "report": ("train",)}


def plan():
    nothing = frozenset()
    return [Step(name, "stage", (name,), Resources(), frozenset(needs), nothing, nothing) for name, needs in NEEDS.items()]


def test_steps_start_when_their_predecessors_are_done():
    schedule = Schedule.of(plan())
    assert [step.name for step in schedule.ready()] == ["ingest"]
    schedule.state["ingest"] = State.DONE
    assert [step.name for step in schedule.ready()] == ["label", "tokenize"]
    schedule.state |= {"label": State.SKIPPED, "tokenize": State.RUNNING}
    assert schedule.ready() == [] and not schedule.is_over()
    schedule.state["tokenize"] = State.FAILED
    assert schedule.ready() == [] and schedule.is_over()


def test_a_result_is_outdated_if_any_predecessor_has_run_again():
    schedule = Schedule.of(plan())
    schedule.rerun.add("label")
    assert {name for name, step in schedule.steps.items() if schedule.follows_rerun(step)} == {"train", "report"}
