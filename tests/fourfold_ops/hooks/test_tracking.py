import json
import signal

import pytest


def test_run_has_a_parent_and_a_child_per_stage(miniature):
    miniature.run(runtime_params={"seed": 2})
    (parent,) = miniature.recorded("parent")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["kedro.command"] == "kedro run --params=seed=2"
    assert json.loads(parent.data.params["tuning.rate"]) == 0.5
    assert json.loads(parent.data.params["tuning.fail"]) is False
    for stage in ("making", "tuning", "judging"):
        (child,) = miniature.recorded(stage)
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {key.split(".")[0] for key in child.data.params} == {stage, "seed", "num_threads"}


def test_metrics_of_a_node_are_in_the_run_of_its_stage(miniature):
    miniature.run()
    (child,) = miniature.recorded("tuning")
    history = miniature.client().get_metric_history(child.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.5), (2, 1.0)]


def test_data_digest_changes_with_the_content(miniature):
    miniature.run()
    miniature.run(runtime_params={"seed": 1})
    digests = []
    for child in miniature.recorded("tuning"):
        inputs = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in child.inputs.dataset_inputs}
        assert {name: context for name, (_, context) in inputs.items()} == {"made": "input", "tuned": "output"}
        digests.append(inputs["made"][0])
    assert digests[0] != digests[1]


def test_failing_node_marks_parent_and_stage_failed_with_message(miniature):
    with pytest.raises(ValueError, match="too high"):
        miniature.run(runtime_params={"tuning": {"fail": True}})
    assert miniature.recorded("making")[0].info.status == "FINISHED"
    for name in ("parent", "tuning"):
        (run,) = miniature.recorded(name)
        assert run.info.status == "FAILED"
        assert "Lower tuning.rate" in run.data.tags["error"]


def test_next_run_marks_a_killed_run_and_failure_is_one_line(miniature):
    killed = miniature.command("kedro", "run", MINIATURE_KILL="1")
    assert killed.returncode == -signal.SIGKILL
    assert [run.info.status for run in miniature.recorded("parent")] == ["RUNNING"]

    failed = miniature.command("kedro", "run", "--params=tuning.fail=true")
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("Failed in tuning, node tune_numbers: The rate is too high. Lower tuning.rate.")
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "Traceback" in (miniature.folder / "data/run.log").read_text()
    assert [run.info.status for run in miniature.recorded("parent")] == ["KILLED", "FAILED"]
    assert [run.info.status for run in miniature.recorded("tuning")] == ["KILLED", "FAILED"]


def test_wrong_parameter_stops_the_run_before_any_node(miniature):
    from fourfold_ops.errors import UserError

    with pytest.raises(UserError, match=r"making.sise is an unknown key. Did you mean 'size'\? Allowed: note, size") as error:
        miniature.run(runtime_params={"making": {"sise": 4}, "judging": {"size": 0}})
    assert "judging.size = 0: Input should be greater than or equal to 1" in str(error.value)
    assert not (miniature.folder / "data/01_made").exists()


def test_compute_facts_are_tags_of_every_stage(miniature):
    settings = miniature.folder / miniature.package / "settings.py"
    settings.write_text(
        settings.read_text().replace("TrackingHook()", f'TrackingHook("{miniature.package}.facts.compute_facts")')
    )
    facts = (
        "def compute_facts(stage, parameters):\n    return {'precision': 'bf16', 'num_threads': parameters['num_threads']}\n"
    )
    miniature.write(f"{miniature.package}/facts.py", facts)
    miniature.run()
    for stage in ("making", "tuning", "judging"):
        (child,) = miniature.recorded(stage)
        assert child.data.tags["compute.precision"] == "bf16" and child.data.tags["compute.num_threads"] == "1"
