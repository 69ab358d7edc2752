"""What the conductor decides. The server is scripted; the real one judges in tests/cluster."""

import logging
import os
import sys
import threading
from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from fourfold_ops.datasets import JsonDataset
from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_FAILED, UserError, exit_code
from fourfold_ops.kubernetes.board import Board
from fourfold_ops.kubernetes.client import ApiError
from fourfold_ops.kubernetes.conductor import Conductor
from fourfold_ops.kubernetes.errors import StepFailedError
from fourfold_ops.kubernetes.plan import Origin, plan_run
from fourfold_ops.kubernetes.settings import read_settings
from fourfold_ops.kubernetes.standing import rows

sys.path.insert(0, str(Path(__file__).parent))
from scripted_cluster import ScriptedCluster, succeed

ENTRIES = ("raw", "a", "b", "both", "page")


def work(*_):
    return 1


class Tracker:
    """Remembers what it was told."""

    def __init__(self):
        self.ended, self.kept = {}, {}

    def hand_over(self, step):
        return {"parent_run": "parent", "stage_runs": {"stage": "child"}}

    def over(self, step, error):
        self.ended[step.name] = error

    def keep(self, step, files):
        self.kept.setdefault(step.name, []).extend(path.name for path in files)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.plan.stage_of", lambda _: "stage")
    (tmp_path / "data").mkdir()
    for name in ENTRIES:
        (tmp_path / f"data/{name}.json").write_text("1")
        os.utime(tmp_path / f"data/{name}.json", (0, 0))  # long before any Job
    return tmp_path


def plan(project: Path, parameters=None, **settings):
    pipeline = Pipeline(
        [
            node(work, "params:x", "raw", name="ingest"),
            node(work, "raw", "a", name="one", tags="gpu"),
            node(work, "raw", "b", name="two", tags="gpu"),
            node(work, ["a", "b"], "both", name="join", tags="gpu"),
            node(work, "both", "page", name="report"),
        ]
    )
    entries = {name: JsonDataset(str(project / f"data/{name}.json")) for name in ENTRIES}
    catalog = DataCatalog({**entries, "params:x": MemoryDataset(parameters or 1)})
    site = {"image": "x", "allow_tag": True, "volumes": [{"mount": "data", "claim": "data"}], "tags": {"gpu": {}}, **settings}
    origin = Origin("mini", project, "site", str(project / "conf"), {"env": "site"}, {"x": parameters or 1})
    return plan_run(pipeline, catalog, read_settings(site, "kubernetes.yml"), origin)


def conduct(project, cluster, during=None, **settings):
    """Drive a plan to its end; the driver's nodes do nothing."""
    made = plan(project, **settings)
    tracker = Tracker()
    conductor = Conductor(made, cluster, Board(rows(made)), tracker, project / "data/logs")
    conductor.start()
    ran = []
    for step in conductor.driver_nodes():
        ran.append(step.name)
        if during:
            during(conductor, step)
        conductor.driver_done(step)
    conductor.join(20)
    assert not conductor.is_alive()
    return conductor, tracker, ran


def started(cluster):
    return [name.rpartition("-")[0] for name in cluster.created]


def test_steps_run_in_order_with_independent_ones_at_the_same_time(project):
    held = threading.Event()
    waiting = []

    def on_create(cluster, job):
        if job["metadata"]["name"].startswith("join"):
            succeed(cluster, job)
            return
        waiting.append(job)
        if len(waiting) == 2:  # both are there before either has ended
            held.set()
            for one in waiting:
                succeed(cluster, one)

    cluster = ScriptedCluster(on_create)
    conductor, tracker, ran = conduct(project, cluster)
    conductor.raise_failure()
    assert held.is_set() and ran == ["ingest", "report"]
    assert sorted(started(cluster)[:2]) == ["one", "two"] and started(cluster)[2:] == ["join"]
    assert tracker.ended == {"one": "", "two": "", "join": ""}
    assert all(any(name.endswith("-a.txt") for name in names) for names in tracker.kept.values())


def test_the_same_command_again_skips_what_is_done_and_starts_no_twin(project):
    cluster = ScriptedCluster(succeed)
    conduct(project, cluster)
    cluster.closed.clear()
    conductor, _, ran = conduct(project, cluster)
    assert len(cluster.created) == 3 and ran == ["ingest", "report"]
    assert [conductor.board.rows[f"stage/{name}"].state for name in ("one", "two", "join")] == ["skipped"] * 3


def test_other_parameters_give_other_jobs(project):
    cluster = ScriptedCluster(succeed)
    conduct(project, cluster)
    assert {step for step, content in plan(project).contents.items()} == {"ingest", "one", "two", "join", "report"}
    assert set(plan(project).contents.values()).isdisjoint(plan(project, parameters=2).contents.values())


def test_a_result_that_somebody_wrote_over_is_made_again_and_all_that_follows(project):
    cluster = ScriptedCluster(succeed)
    conduct(project, cluster)
    cluster.closed.clear()
    (project / "data/a.json").write_text("2")  # now: after the Job ended
    conduct(project, cluster)
    assert sorted(started(cluster)[3:]) == ["join", "one"]


def test_a_job_that_still_runs_is_taken_up(project):
    jobs = []

    def on_create(cluster, job):
        if job["metadata"]["name"].startswith("one"):
            jobs.append(job)
            cluster.pod(job, "one-a", "Running")
        else:
            succeed(cluster, job)

    cluster = ScriptedCluster(on_create)
    cluster.create("jobs", _manifest(plan(project), "one"))
    threading.Timer(0.5, lambda: succeed(cluster, jobs[0])).start()
    conductor, tracker, _ = conduct(project, cluster)
    conductor.raise_failure()
    assert started(cluster).count("one") == 1 and tracker.ended["one"] == ""


def test_a_job_that_failed_before_is_replaced(project):
    cluster = ScriptedCluster(lambda c, job: c.end(job, "Failed"))
    cluster.create("jobs", _manifest(plan(project), "one"))
    cluster._on_create = succeed
    conductor, _, _ = conduct(project, cluster)
    conductor.raise_failure()
    assert started(cluster).count("one") == 2


def test_pods_of_a_deleted_job_of_the_same_name_are_not_taken_for_the_new_ones(project, caplog):
    caplog.set_level(logging.INFO)
    cluster = ScriptedCluster(succeed)
    conduct(project, cluster)
    cluster.closed.clear()
    (project / "data/a.json").write_text("2")
    cluster._on_create = lambda c, job: c.end(job, "Failed")  # no pod of the new Job is ever seen
    conductor, _, _ = conduct(project, cluster)
    with pytest.raises(StepFailedError, match=r"stage/one: failed, and its pods are gone"):
        conductor.raise_failure()


def test_a_failure_ends_in_its_verdict_and_nothing_more_is_started(project, caplog):
    def on_create(cluster, job):
        if job["metadata"]["name"].startswith("one"):
            cluster.pod(job, f"{job['metadata']['name']}-a", "Failed", 137, "OOMKilled")
            cluster.end(job, "Failed")
        else:
            succeed(cluster, job)

    caplog.set_level(logging.INFO)
    conductor, tracker, ran = conduct(project, ScriptedCluster(on_create))
    with pytest.raises(StepFailedError, match=r"^stage/one: OOMKilled \(exit 137\) on node-0") as error:
        conductor.raise_failure()
    assert exit_code(error.value) == EXIT_FAILED
    assert "join" not in tracker.ended and ran == ["ingest"]
    assert "OOMKilled" in tracker.ended["one"] and tracker.kept["one"]


def test_bad_configuration_keeps_its_own_exit_code(project):
    def on_create(cluster, job):
        cluster.pod(job, f"{job['metadata']['name']}-a", "Failed", 78, message="Failed: x is an unknown key.")
        cluster.end(job, "Failed")

    conductor, _, _ = conduct(project, ScriptedCluster(on_create))
    with pytest.raises(StepFailedError, match="bad configuration") as error:
        conductor.raise_failure()
    assert exit_code(error.value) == EXIT_CONFIGURATION


def test_a_split_step_runs_its_parts_then_itself_whole_and_failed_parts_alone_again(project):
    attempts = []

    def on_create(cluster, job):
        name, spec = job["metadata"]["name"], job["spec"]
        if name.startswith("one") and "backoffLimitPerIndex" in spec:
            env = {e["name"]: e.get("value") for e in spec["template"]["spec"]["containers"][0]["env"]}
            attempts.append((spec["completions"], env["KEDRO_PART_NUMBERS"], env["KEDRO_PART_COUNT"]))
            if len(attempts) == 1:
                cluster.pod(job, f"{name}-3-a", "Failed", 1, message="ValueError: bad shard")
                cluster.end(job, "Failed", failedIndexes="1,3")
                return
        succeed(cluster, job)

    cluster = ScriptedCluster(on_create)
    settings = {"nodes": {"one": {"shards": 4}}}
    conductor, _, _ = conduct(project, cluster, **settings)
    with pytest.raises(StepFailedError, match=r"stage/one: parts 1,3 failed: failed \(exit 1\)"):
        conductor.raise_failure()
    cluster.closed.clear()
    conductor, _, _ = conduct(project, cluster, **settings)
    conductor.raise_failure()
    assert attempts == [(4, "0,1,2,3", "4"), (2, "1,3", "4")]
    assert [name for name in cluster.created if name.endswith("-merge")]


def test_what_nobody_can_start_is_given_up_and_taken_back(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.conductor.TICK_SECONDS", 0.05)
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}

    def on_create(cluster, job):
        cluster.pod(job, f"{job['metadata']['name']}-a", "Pending", conditions=[condition], node="")

    cluster = ScriptedCluster(on_create)
    conductor, _, _ = conduct(project, cluster, pending_seconds=1)
    with pytest.raises(StepFailedError, match="no node has room: 1 Insufficient cpu"):
        conductor.raise_failure()
    assert not cluster.objects["jobs"]  # the other one, which had not begun either, is taken back too


class FullCluster(ScriptedCluster):
    """Has a quota on Jobs, used up until `refusals` attempts were made."""

    refusals = 0

    def create(self, resource, manifest):
        if resource == "jobs" and self.refusals:
            self.refusals -= 1
            message = 'jobs.batch "x" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: more'
            raise ApiError(403, "create", "jobs", "ns", message)
        return super().create(resource, manifest)


def test_a_job_that_a_quota_refuses_is_submitted_when_there_is_room(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.conductor.TICK_SECONDS", 0.05)
    monkeypatch.setattr("fourfold_ops.kubernetes.patience.ASK_SECONDS", 0.1)
    cluster = FullCluster(succeed)
    cluster.refusals = 4
    conductor, tracker, _ = conduct(project, cluster)
    conductor.raise_failure()
    assert cluster.refusals == 0 and tracker.ended == {"one": "", "two": "", "join": ""}


def test_a_job_that_a_quota_refuses_for_too_long_fails_with_the_quotas_name(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.conductor.TICK_SECONDS", 0.05)
    cluster = FullCluster(succeed)
    cluster.refusals = 1000
    conductor, _, _ = conduct(project, cluster, pending_seconds=1)
    with pytest.raises(StepFailedError, match=r"quota team refuses the Job; requested: count/jobs\.batch=1"):
        conductor.raise_failure()
    assert not cluster.objects["jobs"]


def test_another_run_that_writes_to_the_same_place_is_not_disturbed(project):
    cluster = ScriptedCluster(lambda *_: None)
    other = plan(project, parameters=2)
    cluster.create("jobs", _manifest(other, "one"))
    conductor, _, _ = conduct(project, cluster)
    with pytest.raises(UserError, match=r"Nothing was submitted. Job one-\w+ of run mini-\w+ is writing to claim data:/a.json"):
        conductor.raise_failure()
    assert len(cluster.created) == 1


def test_cancelling_takes_back_what_runs_and_nothing_else(project):
    cluster = ScriptedCluster(lambda c, job: c.pod(job, f"{job['metadata']['name']}-a", "Running"))
    made = plan(project)
    conductor = Conductor(made, cluster, Board(rows(made)), Tracker(), project / "data/logs")
    conductor.start()
    conductor.driver_done(next(conductor.driver_nodes()))
    while len(cluster.created) < 2:
        pass
    conductor.cancel()
    conductor.join(20)
    assert sorted(conductor.cancelled) == sorted(cluster.created) and not cluster.objects["jobs"]
    conductor.raise_failure()


def test_an_error_of_the_drivers_own_node_is_the_runs_error(project):
    cluster = ScriptedCluster(succeed)
    made = plan(project)
    conductor = Conductor(made, cluster, Board(rows(made)), Tracker(), project / "data/logs")
    conductor.start()
    for step in conductor.driver_nodes():
        conductor.driver_done(step, ValueError("of the node"))
    conductor.join(20)
    with pytest.raises(ValueError, match="of the node"):
        conductor.raise_failure()
    assert not cluster.created


def _manifest(made, name):
    from fourfold_ops.kubernetes.manifest import job

    return job(made.step_job(next(step for step in made.steps if step.name == name)), made.settings)
