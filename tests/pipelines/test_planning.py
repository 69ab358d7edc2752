"""What `kedro plan` knows of this project, and that it takes no library of a stage to find out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold.reuse import claim, fingerprint
from fourfold.storage import read_json
from pipelines.planning import PROJECT

ROOT = Path(__file__).parents[2]
# The checks that need the libraries have a process of their own; this is about the command's.
COMMAND = """
import sys
from pathlib import Path
from kedro.framework.startup import bootstrap_project
bootstrap_project(Path.cwd())
from fourfold_ops.cli import validation
validation.start = lambda *arguments: None
from pipelines.cli import cli
try:
    cli(["plan", "--env=smoke", "--json"])
except SystemExit as done:
    heavy = "torch mlflow dvc great_expectations kubernetes pandas scipy matplotlib gradio fastapi kedro_viz"
    loaded = set(heavy.split()) & set(sys.modules)
    print(*sorted(loaded), file=sys.stderr)
"""


def test_plan_imports_no_library_of_a_stage():
    done = subprocess.run([sys.executable, "-c", COMMAND], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    names = [stage["name"] for stage in json.loads(done.stdout)["stages"]]
    assert names[0] == "ingestion" and names[-1] == "evaluation" and len(names) == 6


def test_a_claim_is_read_as_it_was_written(tmp_path):
    made_from = fingerprint("fourfold.storage", inputs={"shards": "0a"}, config={"a": 1}, seed=3)
    claim(tmp_path / "results/deep", made_from)
    (found,) = PROJECT.claims(tmp_path / "results").items()
    assert found[0] == tmp_path / "results/deep"
    assert (found[1].digest, found[1].inputs) == (made_from.digest, {"shards": "0a"})
    assert found[1].parameters == {"config": {"a": 1}, "seed": 3}
    assert PROJECT.code(found[1].modules) == made_from.modules
    assert PROJECT.code(["fourfold.no_such_module", "no_such_package.x"]) == {}


def test_damage_is_found_in_shards_and_in_recorded_files(tmp_path):
    from fourfold.data.shards import finish_split, shard_name, write_columns
    from fourfold.digests import write_recorded

    write_columns(tmp_path / "shards", "val", shard_name(0), {"caption": [("a", "one"), ("b", "two")]})
    finish_split(tmp_path / "shards", "val", ["caption"])
    write_recorded(tmp_path / "models", "weights", b"1234")
    shard, weights = tmp_path / "shards/val/caption" / shard_name(0), tmp_path / "models/weights"
    manifest = tmp_path / "shards/val/caption/manifest.json"
    assert read_json(manifest)["shards"]
    files = (shard, weights, manifest)
    assert [PROJECT.damage(file) for file in files] == ["", "", ""]
    for file in files[:2]:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"!")
        assert PROJECT.damage(file).endswith("changed after it was written"), file
        file.write_bytes(content)
    manifest.write_text(manifest.read_text() + " ")
    assert PROJECT.damage(manifest)


def test_a_missing_source_is_found_only_for_ingestion():
    parameters = {"ingestion": {"source": {"kind": "folder", "path": "/no/such/folder"}}}
    with pytest.raises(ValueError, match="'/no/such/folder' does not exist"):
        PROJECT.check(["ingestion"], parameters)
    PROJECT.check(["pretraining"], parameters)
    assert PROJECT.outside(parameters) == {"source": "/no/such/folder", "supplement": None}
