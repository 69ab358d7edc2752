"""Exit codes of `kedro run` as a user starts it; tests/fourfold_ops/hooks has those of the lock and of dvc.lock."""

import os
import signal
import time
from pathlib import Path

import pytest
from preloaded import Command

from fourfold_ops import errors

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--pipelines=tunnig", "Failed to find the pipeline named 'tunnig'"),
        ("--env=smoek", "There is no environment 'smoek'. Did you mean 'smoke'? Choose a folder of conf/: base, local, smoke."),
        ("--nodes=nothing", "nothing"),
    ],
)
def test_wrong_names_are_configuration_errors_on_one_line(miniature, option, text):
    done = miniature.command("kedro", "run", option)
    assert done.returncode == errors.EXIT_CONFIGURATION
    assert text in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr
    assert not (miniature.folder / "data/01_made").exists()


def test_comma_in_a_value_of_params_says_where_the_value_belongs(miniature):
    done = miniature.command("kedro", "run", "--params=source.path=/photos/one,two")
    assert done.returncode == errors.EXIT_USAGE
    assert "`two` must contain a key and a value" in done.stderr
    assert done.stderr.strip().endswith("Commas separate parameters: set a value that has one in conf/local/parameters.yml.")


def test_sigterm_outside_a_training_ends_with_one_line_and_code_75(miniature):
    environment = {**os.environ, "MINIATURE_WAIT": "1", "DO_NOT_TRACK": "1"}
    run = Command(["kedro", "run"], miniature.folder, environment, miniature.folder.with_name("log"))
    while not (miniature.folder / "waiting").exists():
        assert run.poll() is None
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(300) == errors.EXIT_TRY_AGAIN
    assert run.text().strip().splitlines()[-1] == "Stopped by SIGTERM. Run the same command to continue."
    assert [one.info.status for one in miniature.recorded("parent")] == ["KILLED"]


def test_every_code_is_in_the_table_of_the_documentation():
    page = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")} >= {str(code) for code in codes}
