import os

import click
import pytest
from click.testing import CliRunner

from fourfold_ops import handover
from fourfold_ops.cli.options import with_fresh

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
