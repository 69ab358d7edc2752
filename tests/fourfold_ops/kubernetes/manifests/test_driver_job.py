from datetime import UTC, datetime

import click
import pytest

from fourfold_ops.kubernetes.cli.commands import with_kubernetes
from fourfold_ops.kubernetes.cli.overview import entries
from fourfold_ops.kubernetes.cli.planned_commands import without_runner
from fourfold_ops.kubernetes.manifests.driver_job import RUNNER, driver_job, driver_spec
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.hook import SETTINGS_VARIABLE
from fourfold_ops.kubernetes.plan.run_plan import DRIVER_JOB, DRIVER_UID, Origin, RunPlan, driver_owner
from fourfold_ops.kubernetes.plan.settings import read_settings
from fourfold_ops.tracking.provenance import git_tags

SITE = {
    "image": "registry.example/x@sha256:" + "0" * 64,
    "context": "my-laptop",
    "default": {"gpus": 0, "memory": "4Gi"},
    "driver": {"cpu": 2},
    "tags": {"gpu": {"gpus": 8}},
}


@pytest.fixture
def manifest(tmp_path):
    settings = read_settings(SITE, "kubernetes.yml")
    plan = RunPlan("mini-0a1b2c3d", "mini", [], {}, settings, Origin("mini", tmp_path, "site", "conf", {}, {}), {})
    return driver_job(driver_spec(plan, ["--env=site", "--params=a=1"], 2), settings)


def container(manifest):
    return manifest["spec"]["template"]["spec"]["containers"][0]


def test_the_driver_runs_the_command_under_its_service_account(manifest):
    assert container(manifest)["command"] == ["kedro", "run", "--env=site", "--params=a=1", f"--runner={RUNNER}"]
    pod = manifest["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("kedro-driver", True)
    assert container(manifest)["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert manifest["metadata"]["name"] == "driver-mini-0a1b2c3d-2"


def test_the_driver_gets_the_settings_without_the_context(manifest):
    handed = next(e["value"] for e in container(manifest)["env"] if e["name"] == SETTINGS_VARIABLE)
    import json

    again = read_settings(json.loads(handed), SETTINGS_VARIABLE)
    assert again == read_settings({k: v for k, v in SITE.items() if k != "context"}, "kubernetes.yml")


def test_git_tags_come_from_the_environment_in_an_image(tmp_path, monkeypatch):
    monkeypatch.setenv("KEDRO_GIT_TAGS", '{"git.commit": "abc"}')
    assert git_tags(tmp_path) == {"git.commit": "abc"}


def test_a_killed_driver_is_restarted_and_a_failed_one_is_not(manifest):
    rules = manifest["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["action"] == "FailJob" and rules[0]["onExitCodes"]["values"] == [1, 2, 78]
    assert manifest["spec"]["backoffLimit"] > 0


def test_the_driver_job_owns_what_the_driver_creates(manifest, monkeypatch):
    assert driver_owner() is None
    variables = {e["name"] for e in container(manifest)["env"]}
    assert {DRIVER_JOB, DRIVER_UID} <= variables
    monkeypatch.setenv(DRIVER_JOB, "driver-x")
    monkeypatch.setenv(DRIVER_UID, "123")
    assert driver_owner() == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "driver-x",
        "uid": "123",
        "blockOwnerDeletion": False,
    }


def test_the_short_name_of_the_runner_is_expanded():
    @click.command()
    @click.option("--runner", "-r", default=None)
    def run(runner):
        click.echo(runner)

    from click.testing import CliRunner

    command = with_kubernetes(run)
    assert CliRunner().invoke(command, ["--runner=kubernetes"]).output.strip() == RUNNER
    assert CliRunner().invoke(command, ["-r", "ThreadRunner"]).output.strip() == "ThreadRunner"


@pytest.mark.parametrize("given", [["--runner=kubernetes"], ["-r", "kubernetes"], ["--runner", "x.Y"], []])
def test_the_runner_is_removed_from_the_arguments(given):
    assert without_runner(["--env=site", *given, "--params=a=1"]) == ["--env=site", "--params=a=1"]


def test_the_overview_shows_state_and_age_of_each_step():
    def job(name, created, conditions=(), **status):
        metadata = {
            "name": name,
            "creationTimestamp": created,
            "labels": names.labels("mini", "mini-1", name),
            "annotations": {names.TITLE: f"stage/{name}"},
        }
        return {
            "metadata": metadata,
            "spec": {"parallelism": 2},
            "status": {"conditions": [{"type": c, "status": "True"} for c in conditions], **status},
        }

    jobs = [
        job("late", "2026-01-01T00:02:00Z"),
        job("done", "2026-01-01T00:00:00Z", ["Complete"]),
        job("busy", "2026-01-01T00:01:00Z", ready=1),
    ]
    found = entries(jobs, [], datetime(2026, 1, 1, 0, 4, tzinfo=UTC))
    assert [(one.title, one.state, one.age) for one in found] == [
        ("stage/done", "done", "4m"),
        ("stage/busy", "running", "3m"),
        ("stage/late", "pending", "2m"),
    ]
