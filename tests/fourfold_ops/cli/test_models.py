"""`kedro models`, as a user runs it in a project."""

import json

import pytest
import yaml
from shelf import GATE, NAME, Shelf

from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_REFUSED, EXIT_USAGE
from fourfold_ops.tracking import names

CATALOG = f"""
registered_model:
  type: fourfold_ops.registry.registered_model.RegisteredModelDataset
  name: {NAME}
  loader: nothing.Nothing
  inputs: {{}}
numbers:
  type: fourfold_ops.datasets.JsonDataset
  filepath: data/numbers.json
  validator: {{class: fourfold_ops.quality.GreatExpectations, options: {{suite: numbers}}}}
"""


@pytest.fixture
def project(miniature):
    """A project with a registered model and a gate."""
    miniature.write("conf/base/catalog_models.yml", CATALOG)
    miniature.write("conf/base/promotion.yml", yaml.safe_dump(GATE))
    return miniature, Shelf(miniature.folder, miniature.client())


def test_refused_promoted_listed_and_rolled_back(project):
    miniature, shelf = project
    shelf.add(0.5, **{names.DIRTY: "true"})
    refused = miniature.command("kedro", "models", "promote", "candidate")
    assert refused.returncode == EXIT_REFUSED, refused.stderr
    assert "FAILED  clean_tree" in refused.stdout and "passed  score" in refused.stdout
    assert "Refused: echo, version 1, does not become champion." in refused.stderr
    assert shelf.aliases() == {"candidate": "1"}

    forced = miniature.command("kedro", "models", "promote", "candidate", "--force", "--reason", "demo on Friday")
    assert forced.returncode == 0 and shelf.aliases() == {"candidate": "1", "champion": "1"}

    shelf.add(0.6)
    promoted = miniature.command("kedro", "models", "promote", "2", "--json")
    found = json.loads(promoted.stdout)
    assert promoted.returncode == 0 and found["passed"] and found["entry"]["from_version"] == "1"

    rolled = miniature.command("kedro", "models", "rollback", "--reason", "slow")
    assert rolled.returncode == 0 and shelf.aliases()["champion"] == "1"

    compared = miniature.command("kedro", "models", "compare").stdout.splitlines()
    assert compared[0].split() == ["metric", "champion", "candidate", "gain", "verdict"]
    assert compared[1].startswith("score") and compared[1].endswith("+0.1 to +0.1  better")
    trivial = json.loads(miniature.command("kedro", "models", "compare", "1", "trivial", "--json").stdout)
    assert [row["verdict"] for row in trivial] == ["better"]

    lines = miniature.command("kedro", "models", "list").stdout.splitlines()
    assert lines[0] == NAME
    assert lines[2].split()[:3] == ["2", "candidate,", "previous"]
    assert lines[3].startswith("1") and lines[3].endswith("dirty, forced")
    assert "rollback 2 → 1 by Ada <ada@example.org>" in lines[6]
    assert lines[-1].endswith('promote none → 1 by Ada <ada@example.org> (forced: "demo on Friday")')
    listed = json.loads(miniature.command("kedro", "models", "list", "--json").stdout)
    assert [v["version"] for v in listed["versions"]] == ["2", "1"] and len(listed["history"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("promote", "candidate", "--force"), EXIT_USAGE, '--force needs --reason "..."'),
        (("promote", "9"), EXIT_CONFIGURATION, "has no version or alias '9'. Allowed: candidate, 1."),
        (("list", "--name=ecko"), EXIT_CONFIGURATION, "has no model 'ecko'. Did you mean 'echo'?"),
        (("rollback",), EXIT_CONFIGURATION, "has no alias 'champion', so there is nothing to roll back"),
        (("promote", "1", "--env=strict"), EXIT_CONFIGURATION, "conf/strict/promotion.yml is not a valid gate: min_bettr"),
    ],
)
def test_mistakes_are_one_clear_line(project, arguments, code, text):
    miniature, shelf = project
    miniature.write("conf/strict/promotion.yml", "min_bettr: 2\n")
    shelf.add(0.5)
    done = miniature.command("kedro", "models", *arguments)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr and shelf.aliases() == {"candidate": "1"}


def test_environment_chooses_the_gate(project):
    miniature, shelf = project
    strict = {"metrics": {"score": {"direction": "higher", "max_loss": 0, "min_gain": 0.3}}}
    miniature.write("conf/strict/promotion.yml", yaml.safe_dump(strict))
    shelf.add(0.5)
    assert miniature.command("kedro", "models", "promote", "candidate").returncode == 0
    shelf.add(0.6)
    assert miniature.command("kedro", "models", "promote", "candidate", "--env=strict").returncode == EXIT_REFUSED
    assert miniature.command("kedro", "models", "promote", "candidate").returncode == 0


def test_project_without_a_gate_or_a_model_is_one_clear_line(miniature):
    done = miniature.command("kedro", "models", "list")
    assert done.returncode == EXIT_CONFIGURATION
    assert "The catalog registers 0 models: none. Choose one with --name." in done.stderr
    Shelf(miniature.folder, miniature.client()).add(0.5)
    done = miniature.command("kedro", "models", "promote", "1", f"--name={NAME}")
    assert done.returncode == EXIT_CONFIGURATION and "There is no conf/base/promotion.yml." in done.stderr
