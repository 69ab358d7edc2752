"""What `kedro plan` says of a finished project that was changed is what the next run does."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from preloaded import run
from tiny import ENVIRONMENT

STAGES = ["ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation"]
SETTINGS, MODULE = f"conf/{ENVIRONMENT}/parameters.yml", "src/fourfold/masking/masker.py"
SHARD = "data/03_tokens/shards/val/tok_depth/shard-00000.tar"
PRETRAINED, TRANSFER, TOKENS = "data/04_models/pretraining", "data/04_models/finetuning/runs", "data/03_tokens/shards"


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    done = run(["kedro", *arguments, f"--env={ENVIRONMENT}"], folder, environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done


def plan(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the stages that would run, and what would happen to the claimed folders that are not kept."""
    stages = json.loads(kedro(folder, "plan", "--json").stdout)["stages"]
    folders = {one["path"]: one["action"] for stage in stages for one in stage["folders"] if one["action"] != "keep"}
    return [stage["name"] for stage in stages if stage["action"] == "run"], folders


def change_parameter(folder: Path) -> None:
    values = yaml.safe_load((folder / SETTINGS).read_text())
    values["finetuning"]["steps"] += 1
    (folder / SETTINGS).write_text(yaml.safe_dump(values))


def change_module(folder: Path) -> None:
    (folder / MODULE).write_text((folder / MODULE).read_text() + "\nEDITED = 1\n")


def change_file(folder: Path) -> None:
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:600] + b"?" + content[601:])


CHANGES = {
    SETTINGS: (change_parameter, STAGES[4:], {TRANSFER: "make"}),
    MODULE: (change_module, STAGES[3:], {PRETRAINED: "make", TRANSFER: "maybe"}),
    SHARD: (change_file, STAGES[2:], {TOKENS: "repair"}),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_run_does_what_the_plan_says(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    # 1) Each change alone, undone afterward
    assert plan(folder) == ([], {})
    for path, (change, stages, folders) in CHANGES.items():
        before = (folder / path).read_bytes()
        change(folder)
        assert plan(folder) == (stages, folders), path
        (folder / path).write_bytes(before)
    # 2) All changes: the run supersedes and repairs what the plan names, and calls no other stage
    shard = (folder / SHARD).read_bytes()
    for change, _, _ in CHANGES.values():
        change(folder)
    stages, folders = plan(folder)
    done = kedro(folder, "run", "--only-changed")
    text = done.stdout + done.stderr
    superseded = set(re.findall(r"(data/\S+) no longer matches", text))
    repaired = set(re.findall(r"(data/\S+?)/val/\S+ changed after it was written.* Making it again", text))
    certain, possible = (
        {path for path, found in folders.items() if found in kinds} for kinds in (("make",), ("make", "maybe"))
    )
    assert certain <= superseded <= possible and certain == {PRETRAINED, TRANSFER}
    assert repaired == {path for path, found in folders.items() if found == "repair"} == {TOKENS}
    assert (folder / SHARD).read_bytes() == shard
    assert f"Recorded in dvc.lock: {', '.join(stages)}" in text
    # 3) Nothing is left to do, and the lock of DVC agrees
    assert plan(folder) == ([], {})
    assert "Nothing to do" in kedro(folder, "run", "--only-changed").stderr
    assert json.loads(run(["dvc", "status", "--json"], folder, dict(os.environ)).stdout) == {}


@pytest.mark.slow
def test_a_run_with_nothing_to_do_is_recorded_like_the_run_before(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    last = json.loads((folder / "data/last_run.json").read_text())
    last["ended_ns"] = time.time_ns()  # a copy has new files
    (folder / "data/last_run.json").write_text(json.dumps(last))
    lock, report = (folder / "dvc.lock").read_bytes(), folder / "data/05_reports/report.html"
    written = report.stat().st_mtime_ns
    done = kedro(folder, "run")
    text = done.stdout + done.stderr
    assert "no stage was called" in text and "Completed node" not in text and "version 1 (candidate)" in text
    assert (folder / "dvc.lock").read_bytes() == lock and report.stat().st_mtime_ns == written
    assert last["run_id"] != json.loads((folder / "data/last_run.json").read_text())["run_id"]
    uri = f"sqlite:///{folder / 'data/mlflow.db'}"
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    runs = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    assert len(runs) == 14
    for before, after in zip(runs[:7], runs[7:], strict=True):
        assert facts(client, after) == facts(client, before)
    assert client.get_model_version_by_alias("fourfold", "candidate").tags["lineage.parent_run_id"] == runs[7].info.run_id


def facts(client, run) -> tuple:
    """Return what two runs with equal results have in common."""
    own = ("process", "mlflow.parentRunId", "mlflow.runName", "mlflow.source.name", "mlflow.log-model.history")
    tags = {key: value for key, value in run.data.tags.items() if key not in own}
    inputs = sorted((one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs)
    metrics = {one.key: one.value for one in run.data._metric_objs if one.step == 0 and not one.key.startswith("system/")}
    folders = [item.path for item in client.list_artifacts(run.info.run_id) if item.is_dir]
    files = [item.path for folder in folders for item in client.list_artifacts(run.info.run_id, folder)]
    params = {key: value for key, value in run.data.params.items() if not key.startswith(("loader", "inputs/"))}  # of a model
    return tags, inputs, metrics, params, sorted(files), run.info.status
