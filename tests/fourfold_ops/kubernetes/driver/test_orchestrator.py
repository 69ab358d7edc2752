"""Decisions of the orchestrator against a scripted cluster; tests/cluster uses a real one."""

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
from fourfold_ops.kubernetes.cluster.client import ApiError
from fourfold_ops.kubernetes.driver.display import LineDisplay
from fourfold_ops.kubernetes.driver.errors import StepFailedError
from fourfold_ops.kubernetes.driver.orchestrator import Orchestrator
from fourfold_ops.kubernetes.driver.status import rows
from fourfold_ops.kubernetes.plan.run_plan import Origin, plan_run
from fourfold_ops.kubernetes.plan.settings import read_settings

sys.path.insert(0, str(Path(__file__).parent))
from scripted_cluster import ScriptedCluster, succeed

ENTRIES = ("raw", "a", "b", "both", "page")


def work(*_):
    return 1


class RunTracker:
    """Records the calls."""

    def __init__(self):
        self.ended, self.kept = {}, {}

    def hand_over(self, step):
        return {"parent_run": "parent", "stage_runs": {"stage": "child"}}

    def end_step(self, step, error):
        self.ended[step.name] = error

    def keep_logs(self, step, files):
        self.kept.setdefault(step.name, []).extend(path.name for path in files)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.plan.run_plan.stage_of", lambda _: "stage")
    (tmp_path / "data").mkdir()
    for name in ENTRIES:
        (tmp_path / f"data/{name}.json").write_text("1")
        os.utime(tmp_path / f"data/{name}.json", (0, 0))  # older than any Job
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


def drive(project, cluster, during=None, **settings):
    """Run a plan to its end; the steps of the driver do nothing."""
    made = plan(project, **settings)
    tracker = RunTracker()
    orchestrator = Orchestrator(made, cluster, LineDisplay(rows(made)), tracker, project / "data/logs")
    orchestrator.start()
    ran = []
    for step in orchestrator.driver_steps():
        ran.append(step.name)
        if during:
            during(orchestrator, step)
        orchestrator.driver_done(step)
    orchestrator.join(20)
    assert not orchestrator.is_alive()
    return orchestrator, tracker, ran


def started(cluster):
    return [name.rpartition("-")[0] for name in cluster.created]


def test_independent_steps_run_at_the_same_time(project):
    held = threading.Event()
    waiting = []

    def on_create(cluster, job):
        if job["metadata"]["name"].startswith("join"):
            succeed(cluster, job)
            return
        waiting.append(job)
        if len(waiting) == 2:  # both exist before either has ended
            held.set()
            for one in waiting:
                succeed(cluster, one)

    cluster = ScriptedCluster(on_create)
    orchestrator, tracker, ran = drive(project, cluster)
    orchestrator.raise_failure()
    assert held.is_set() and ran == ["ingest", "report"]
    assert sorted(started(cluster)[:2]) == ["one", "two"] and started(cluster)[2:] == ["join"]
    assert tracker.ended == {"one": "", "two": "", "join": ""}
    assert all(any(name.endswith("-a.txt") for name in names) for names in tracker.kept.values())


def test_the_same_command_skips_finished_steps(project):
    cluster = ScriptedCluster(succeed)
    drive(project, cluster)
    cluster.closed.clear()
    orchestrator, _, ran = drive(project, cluster)
    assert len(cluster.created) == 3 and ran == ["ingest", "report"]
    assert [orchestrator.display.rows[f"stage/{name}"].state for name in ("one", "two", "join")] == ["skipped"] * 3


def test_other_parameters_give_other_jobs(project):
    cluster = ScriptedCluster(succeed)
    drive(project, cluster)
    assert {step for step, content in plan(project).contents.items()} == {"ingest", "one", "two", "join", "report"}
    assert set(plan(project).contents.values()).isdisjoint(plan(project, parameters=2).contents.values())


def test_a_modified_output_reruns_its_step_and_all_successors(project):
    cluster = ScriptedCluster(succeed)
    drive(project, cluster)
    cluster.closed.clear()
    (project / "data/a.json").write_text("2")  # after the end of the Job
    drive(project, cluster)
    assert sorted(started(cluster)[3:]) == ["join", "one"]


def test_a_running_job_is_adopted(project):
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
    orchestrator, tracker, _ = drive(project, cluster)
    orchestrator.raise_failure()
    assert started(cluster).count("one") == 1 and tracker.ended["one"] == ""


def test_a_failed_job_is_replaced(project):
    cluster = ScriptedCluster(lambda c, job: c.end(job, "Failed"))
    cluster.create("jobs", _manifest(plan(project), "one"))
    cluster._on_create = succeed
    orchestrator, _, _ = drive(project, cluster)
    orchestrator.raise_failure()
    assert started(cluster).count("one") == 2


def test_pods_of_a_deleted_job_of_the_same_name_are_ignored(project, caplog):
    caplog.set_level(logging.INFO)
    cluster = ScriptedCluster(succeed)
    drive(project, cluster)
    cluster.closed.clear()
    (project / "data/a.json").write_text("2")
    cluster._on_create = lambda c, job: c.end(job, "Failed")  # the new Job never has a pod
    orchestrator, _, _ = drive(project, cluster)
    with pytest.raises(StepFailedError, match=r"stage/one: failed, and its pods no longer exist"):
        orchestrator.raise_failure()


def test_a_failure_raises_its_verdict_and_stops_the_run(project, caplog):
    def on_create(cluster, job):
        if job["metadata"]["name"].startswith("one"):
            cluster.pod(job, f"{job['metadata']['name']}-a", "Failed", 137, "OOMKilled")
            cluster.end(job, "Failed")
        else:
            succeed(cluster, job)

    caplog.set_level(logging.INFO)
    orchestrator, tracker, ran = drive(project, ScriptedCluster(on_create))
    with pytest.raises(StepFailedError, match=r"^stage/one: OOMKilled \(exit 137\) on node-0") as error:
        orchestrator.raise_failure()
    assert exit_code(error.value) == EXIT_FAILED
    assert "join" not in tracker.ended and ran == ["ingest"]
    assert "OOMKilled" in tracker.ended["one"] and tracker.kept["one"]


def test_bad_configuration_has_its_own_exit_code(project):
    def on_create(cluster, job):
        cluster.pod(job, f"{job['metadata']['name']}-a", "Failed", 78, message="Failed: x is an unknown key.")
        cluster.end(job, "Failed")

    orchestrator, _, _ = drive(project, ScriptedCluster(on_create))
    with pytest.raises(StepFailedError, match="bad configuration") as error:
        orchestrator.raise_failure()
    assert exit_code(error.value) == EXIT_CONFIGURATION


def test_a_split_step_runs_parts_then_the_merge_and_retries_only_failed_parts(project):
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
    orchestrator, _, _ = drive(project, cluster, **settings)
    with pytest.raises(StepFailedError, match=r"stage/one: parts 1,3 failed: failed \(exit 1\)"):
        orchestrator.raise_failure()
    cluster.closed.clear()
    orchestrator, _, _ = drive(project, cluster, **settings)
    orchestrator.raise_failure()
    assert attempts == [(4, "0,1,2,3", "4"), (2, "1,3", "4")]
    assert [name for name in cluster.created if name.endswith("-merge")]


def test_a_job_that_cannot_start_fails_after_the_time_limit(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.driver.orchestrator.TICK_SECONDS", 0.05)
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}

    def on_create(cluster, job):
        cluster.pod(job, f"{job['metadata']['name']}-a", "Pending", conditions=[condition], node="")

    cluster = ScriptedCluster(on_create)
    orchestrator, _, _ = drive(project, cluster, pending_seconds=1)
    with pytest.raises(StepFailedError, match="no node fits: 1 Insufficient cpu"):
        orchestrator.raise_failure()
    assert not cluster.objects["jobs"]  # the other Job, which had not started either, is deleted too


class FullCluster(ScriptedCluster):
    """A cluster whose quota refuses the first `refusals` attempts to create a Job."""

    refusals = 0

    def create(self, resource, manifest):
        if resource == "jobs" and self.refusals:
            self.refusals -= 1
            message = 'jobs.batch "x" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: more'
            raise ApiError(403, "create", "jobs", "ns", message)
        return super().create(resource, manifest)


def test_a_job_refused_by_a_quota_is_submitted_again(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.driver.orchestrator.TICK_SECONDS", 0.05)
    monkeypatch.setattr("fourfold_ops.kubernetes.driver.pending_steps.RESUBMIT_SECONDS", 0.1)
    cluster = FullCluster(succeed)
    cluster.refusals = 4
    orchestrator, tracker, _ = drive(project, cluster)
    orchestrator.raise_failure()
    assert cluster.refusals == 0 and tracker.ended == {"one": "", "two": "", "join": ""}


def test_a_job_refused_by_a_quota_for_too_long_fails(project, monkeypatch):
    monkeypatch.setattr("fourfold_ops.kubernetes.driver.orchestrator.TICK_SECONDS", 0.05)
    cluster = FullCluster(succeed)
    cluster.refusals = 1000
    orchestrator, _, _ = drive(project, cluster, pending_seconds=1)
    with pytest.raises(StepFailedError, match=r"quota team refuses the Job; requested: count/jobs\.batch=1"):
        orchestrator.raise_failure()
    assert not cluster.objects["jobs"]


def test_a_run_that_would_write_to_the_location_of_another_is_refused(project):
    cluster = ScriptedCluster(lambda *_: None)
    other = plan(project, parameters=2)
    cluster.create("jobs", _manifest(other, "one"))
    orchestrator, _, _ = drive(project, cluster)
    with pytest.raises(UserError, match=r"Nothing was submitted. Job one-\w+ of run mini-\w+ is writing to claim data:/a.json"):
        orchestrator.raise_failure()
    assert len(cluster.created) == 1


def test_cancel_deletes_the_running_jobs(project):
    cluster = ScriptedCluster(lambda c, job: c.pod(job, f"{job['metadata']['name']}-a", "Running"))
    made = plan(project)
    orchestrator = Orchestrator(made, cluster, LineDisplay(rows(made)), RunTracker(), project / "data/logs")
    orchestrator.start()
    orchestrator.driver_done(next(orchestrator.driver_steps()))
    while len(cluster.created) < 2:
        pass
    orchestrator.cancel()
    orchestrator.join(20)
    assert sorted(orchestrator.cancelled) == sorted(cluster.created) and not cluster.objects["jobs"]
    orchestrator.raise_failure()


def test_an_error_of_a_driver_step_is_the_error_of_the_run(project):
    cluster = ScriptedCluster(succeed)
    made = plan(project)
    orchestrator = Orchestrator(made, cluster, LineDisplay(rows(made)), RunTracker(), project / "data/logs")
    orchestrator.start()
    for step in orchestrator.driver_steps():
        orchestrator.driver_done(step, ValueError("of the node"))
    orchestrator.join(20)
    with pytest.raises(ValueError, match="of the node"):
        orchestrator.raise_failure()
    assert not cluster.created


def _manifest(made, name):
    from fourfold_ops.kubernetes.manifests.job import job

    return job(made.step_job(next(step for step in made.steps if step.name == name)), made.settings)
