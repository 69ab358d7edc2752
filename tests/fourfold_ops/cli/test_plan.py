"""`kedro plan` and `kedro run --only-changed` as a user starts them: what the plan says is what the run does."""

import json
import re

import pytest

from fourfold_ops import data_lock, errors
from fourfold_ops.cli import plan as commands

DVC_YAML = """
stages:
  making:
    params: [{conf/base/parameters.yml: [seed, making]}]
    deps: ["${source}"]
    outs: [data/01_made]
  tuning:
    params: [{conf/base/parameters.yml: [seed, tuning]}]
    deps: [data/01_made]
    outs: [data/02_tuned: {persist: true}]
  judging:
    params: [{conf/base/parameters.yml: [judging]}]
    deps: [data/02_tuned]
    outs: [data/03_judged]
"""
PLANNING = """
import hashlib
import json
from pathlib import Path

from fourfold_ops.planning.project import Storage


class Project:
    def claims(self, folder):
        return {}

    def code(self, modules):
        return {name: hashlib.sha256(Path(f"{name}.py").read_bytes()).hexdigest() for name in modules}

    def stage_code(self, stages, catalog, parameters):
        return {stage: self.code([f"code_of_{stage}"]) for stage in stages}

    def damage(self, file):
        record = file.parent / "digests.json"
        expected = json.loads(record.read_text()).get(file.name) if record.exists() else None
        return f"{file.name} changed" if expected and hashlib.sha256(file.read_bytes()).hexdigest() != expected else ""

    def outside(self, parameters):
        return {"source": None}

    def check(self, stages, parameters):
        if parameters["making"].get("note"):
            raise ValueError("making.note is not empty. Remove it.")

    def storage(self, root, parameters, catalog):
        table = ("Storage:", "  a table")
        needed = 10**18 if parameters["making"].get("note") else 0
        return Storage(table, needed, ("judging",), "Judge less.", {"images": 3})


PROJECT = Project()
"""
STAGES = ["making", "tuning", "judging"]
NODES = {"make_numbers": "making", "tune_numbers": "tuning", "judge_numbers": "judging"}


@pytest.fixture
def planned(miniature):
    """Return the miniature with the commands `plan` and `run --only-changed`."""
    package = miniature.package
    miniature.write("dvc.yaml", DVC_YAML)
    miniature.write(f"{package}/planning.py", PLANNING)
    for stage in STAGES:
        miniature.write(f"code_of_{stage}.py", "")
    cli, settings = (miniature.folder / package / name for name in ("cli.py", "settings.py"))
    commands = f"""
from fourfold_ops.cli.plan import Planned, plan_command, with_plan
PLANNED = Planned("{package}.planning.PROJECT")
cli.add_command(with_clear_errors(with_plan(run, PLANNED)), "run")
cli.add_command(with_clear_errors(plan_command(run, PLANNED)), "plan")
"""
    cli.write_text(cli.read_text() + commands)
    hook = f'StageRecordsHook("{package}.planning.PROJECT")'
    text = settings.read_text().replace("HOOKS = (*CHECKS, ", f"HOOKS = (*CHECKS, {hook}, ")
    settings.write_text(f"from fourfold_ops.hooks.stage_records import StageRecordsHook\n{text}")
    return miniature


def plan(project, *options) -> dict:
    done = project.command("kedro", "plan", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def running(found: dict) -> list[str]:
    return [stage["name"] for stage in found["stages"] if stage["action"] == "run"]


def planned_and_done(project, *options) -> tuple[list[str], list[str]]:
    """Run; return the stages that the plan at the start of the run names, and those whose nodes ran."""
    done = project.command("kedro", "run", *options)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"^  (\w+): ", done.stderr.partition("  unchanged")[0], re.MULTILINE)
    return named, [NODES[name] for name in re.findall(r"Completed node: (\w+)", done.stdout + done.stderr)]


def test_run_does_what_the_plan_says(planned):
    before = sorted(path.name for path in (planned.folder / "data").iterdir())
    found = plan(planned)
    assert running(found) == STAGES
    assert found["storage"] == {"images": 3, "needed_bytes": 0} and not any("disk" in note for note in found["notes"])
    assert sorted(path.name for path in (planned.folder / "data").iterdir()) == before  # a plan changes nothing
    assert planned_and_done(planned) == (STAGES, STAGES)
    planned.write("code_of_judging.py", "EDITED = 1")
    found = plan(planned)
    assert running(found) == STAGES[2:]
    assert [change["text"] for change in found["stages"][2]["changes"]] == ["module code_of_judging changed"]
    planned.write("conf/local/parameters.yml", "tuning: {rate: 0.25}")
    planned.write("data/02_tuned/tuned.json", '{"sum": 0}')
    assert planned_and_done(planned, "--only-changed") == (STAGES[1:], STAGES[1:])
    assert json.loads((planned.folder / "data/02_tuned/tuned.json").read_text()) == {"sum": 0.75}
    runs = len(planned.recorded("parent"))
    assert planned_and_done(planned, "--only-changed") == ([], [])
    assert len(planned.recorded("parent")) == runs


def test_a_failed_run_keeps_the_records_of_complete_stages(planned):
    planned.write("conf/local/parameters.yml", "tuning: {fail: true}")
    assert planned.command("kedro", "run").returncode == errors.EXIT_FAILED
    planned.write("conf/local/parameters.yml", "tuning: {fail: false}")
    found = plan(planned)
    assert running(found) == STAGES[1:]
    assert [change["text"] for change in found["stages"][1]["changes"]] == ["data/02_tuned does not exist"]


def test_what_would_make_the_run_fail_gives_its_exit_code(planned):
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = planned.command("kedro", "plan", "--pipelines=judging", "--params=making.note=x,making.size=0", **away)
    assert done.returncode == errors.EXIT_CONFIGURATION
    for text in (
        "\nStorage:\n  a table\n",
        "Note: The disk is too small for the configured data: about 1000000.0 TB needed, ",
        " free. Judge less.",
        "Cannot run: making.note is not empty. Remove it.",
        "Cannot run: Parameters are not valid: making.size = 0",
        "Cannot run: judging reads data/02_tuned, and nothing is there. Run tuning too",
        "Cannot run: The MLflow server http://127.0.0.1:9 does not answer",
    ):
        assert text in done.stdout, done.stdout
    run = planned.command("kedro", "run", **away)
    assert run.returncode == errors.EXIT_CONFIGURATION and "Failed: The MLflow server http://127.0.0.1:9" in run.stderr
    assert not (planned.folder / "data" / data_lock.LOCK_FILE).exists()
    unknown = planned.command("kedro", "plan", "--pipelines=judgin")
    assert unknown.returncode == errors.EXIT_CONFIGURATION
    assert "There is no stage 'judgin'. Did you mean 'judging'? Choose from: making, tuning, judging." in unknown.stderr
    nodes = planned.command("kedro", "run", "--only-changed", "--nodes=make_numbers")
    assert nodes.returncode == errors.EXIT_USAGE and "--only-changed chooses whole stages" in nodes.stderr
    data_lock.acquire(planned.folder / "data", "kedro run --env=other")
    try:
        busy = planned.command("kedro", "plan")
    finally:
        data_lock.release(planned.folder / "data")
    assert busy.returncode == errors.EXIT_BUSY and "`kedro run --env=other`" in busy.stdout


def test_a_fault_of_the_planner_is_reported_and_stops_only_runs_that_need_the_plan(monkeypatch, caplog):
    def fail(present, options):
        raise KeyError("outs")

    monkeypatch.setattr(commands, "_present", lambda planned, options: (None, {}))
    monkeypatch.setattr(commands, "_whole", fail)
    assert commands._plan_of_run(commands.Planned("package.PROJECT"), {}, must_work=False) is None
    assert "No plan (KeyError: 'outs'): this run starts unchecked." in caplog.text
    with pytest.raises(KeyError):
        commands._plan_of_run(commands.Planned("package.PROJECT"), {}, must_work=True)
