import os

import click
import pytest
from click.testing import CliRunner

from fourfold_ops import handover
from fourfold_ops.cli.options import with_fresh, with_offline_tracking
from fourfold_ops.tracking import offline

VARIABLE = "TEST_KEEP_SUPERSEDED"


@pytest.fixture
def run(monkeypatch):
    """A command that prints how many results to keep, and what steps on other machines inherit."""
    for name in (VARIABLE, handover.INHERITED):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)

    @click.command()
    @click.option("--env")
    def command(env):
        click.echo(f"{env} {os.environ.get(VARIABLE)} {handover.inherited()}")

    return lambda *options: CliRunner().invoke(with_fresh(command, VARIABLE), options).output.strip()


def test_without_fresh_nothing_changes(run):
    assert run("--env=smoke") == "smoke None {}"


def test_fresh_keeps_no_superseded_results_here_and_in_steps(run):
    assert run("--env=smoke", "--fresh") == f"smoke 0 {{'{VARIABLE}': '0'}}"


def test_fresh_adds_to_the_inherited_variables(run, monkeypatch):
    monkeypatch.setenv("OTHER", "1")
    monkeypatch.setenv(handover.INHERITED, "OTHER")
    assert run("--fresh") == f"None 0 {{'OTHER': '1', '{VARIABLE}': '0'}}"


def test_offline_tracking_is_requested_before_the_command_and_refused_with_steps_elsewhere(monkeypatch):
    monkeypatch.setenv(offline.VARIABLE, "0")  # removed at the end
    seen = []
    inner = click.Command(
        "run", callback=lambda runner: seen.append((runner, offline.is_requested())), params=[click.Option(["--runner"])]
    )
    command = with_offline_tracking(inner)
    run = CliRunner().invoke
    assert run(command, []).exit_code == 0 and seen == [(None, False)]
    refused = run(command, ["--offline-tracking", "--runner=my_team.ClusterRunner"])
    assert refused.exit_code == 2 and "ClusterRunner runs steps on others" in refused.output and len(seen) == 1
    assert run(command, ["--offline-tracking", "--runner=ThreadRunner"]).exit_code == 0 and seen[1:] == [("ThreadRunner", True)]
