"""A finished run of a miniature project with shards, weights and metrics, under git and DVC; tests work on copies of it."""

import os
import shutil
from pathlib import Path

import pytest

REGISTRY = """
import hashlib
import io
import json
import tarfile

from kedro.pipeline import Pipeline, node


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def make(making, seed, folder):
    shards = []
    for number in range(2):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for index in range(making["size"]):
                content = bytes([seed, number, index])
                member = tarfile.TarInfo(f"train-{number}{index}.rgb.bin")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        name = f"shard-{number}.tar"
        shards.append({"name": name, "sha256": write(folder / "train/rgb", name, stream.getvalue())})
    manifest = write(folder / "train/rgb", "manifest.json", json.dumps({"shards": shards}).encode())
    write(folder, "digests.json", json.dumps({"train/rgb/manifest.json": manifest}).encode())
    return folder


def tune(folder, tuning, workspace):
    total = sum(path.read_bytes()[512] + path.read_bytes()[514] for path in (folder / "train/rgb").glob("*.tar"))
    digest = write(workspace, "größe/weights one.bin", repr(total * tuning["rate"]).encode())
    write(workspace / "größe", "digests.json", json.dumps({"weights one.bin": digest}).encode())
    return workspace


def judge(tuned, judging):
    value = float((tuned / "größe/weights one.bin").read_text())
    return {"score": value, "parts": {"size": judging["size"], "interval": [value - 1, value + 1]}, "reference": "exact"}


def register_pipelines():
    stages = {
        "making": Pipeline([node(make, ["params:making", "params:seed", "made_folder"], "made", name="make_numbers")]),
        "tuning": Pipeline([node(tune, ["made", "params:tuning", "tuned_folder"], "tuned", name="tune_numbers")]),
        "judging": Pipeline([node(judge, ["tuned", "params:judging"], "metrics", name="judge_numbers")]),
    }
    return {"__default__": sum(stages.values(), Pipeline([])), **stages}
"""
CATALOG = """
made_folder: {type: fourfold_ops.datasets.WorkspaceDataset, path: data/01_made}
made: {type: fourfold_ops.datasets.FolderDataset, path: data/01_made}
tuned_folder: {type: fourfold_ops.datasets.WorkspaceDataset, path: data/02_tuned}
tuned: {type: fourfold_ops.datasets.FolderDataset, path: data/02_tuned}
metrics: {type: fourfold_ops.datasets.JsonDataset, filepath: data/03_judged/metrics.json}
"""
CLI = """
import click
from kedro.framework.cli.project import run

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.reproduction.command import reproduce_command


@click.group()
def cli():
    pass


cli.add_command(with_clear_errors(run), "run")
cli.add_command(with_clear_errors(reproduce_command()), "reproduce")
"""
STAGE = """
  {stage}:
    cmd: kedro run ${{flags}}--pipelines={stage} $KEDRO_RUN_FLAGS
    params:
      - conf/base/parameters.yml: [seed, num_threads, {stage}]
      - conf/${{environment}}/parameters.yml: [{stage}]
    deps: [{deps}]
    outs: [{out}: {{persist: true}}]
"""
FILES = {
    ".gitignore": "/data/*\n__pycache__\n/inputs/*\n/.dvc/tmp\n/.dvc/cache\n",
    ".dvcignore": "__pycache__\n",
    ".dvc/config": "[core]\n    analytics = false\n",
    "requirements.lock": "click==0.0.1 ; python_version < '3'\n",
    "conf/base/catalog.yml": CATALOG,
    "conf/local/.gitkeep": "",
}


@pytest.fixture(scope="session")
def finished(make_miniature, tmp_path_factory):
    """A finished run whose lock is committed. Tests must not change it."""
    project = make_miniature(tmp_path_factory.mktemp("finished") / "a project")
    stages = [
        STAGE.format(stage="making", deps=f'{project.package}, "${{source}}"', out="data/01_made"),
        STAGE.format(stage="tuning", deps=f"{project.package}, data/01_made", out="data/02_tuned"),
        STAGE.format(stage="judging", deps=f"{project.package}, data/02_tuned", out="data/03_judged"),
    ]
    text = f"vars: [dvc.run.yml]\nstages:{''.join(stages)}metrics:\n  - data/03_judged/metrics.json\n"
    for path, content in {**FILES, "dvc.yaml": text}.items():
        project.write(path, content)
    project.write("dvc.run.yml", f'environment: base\nflags: ""\nsource: {project.package}/cli.py\n')
    project.write(f"{project.package}/pipeline_registry.py", REGISTRY)
    project.write(f"{project.package}/cli.py", CLI)
    project.git("init", "-q")
    project.git("add", "-A")
    project.git("commit", "-qm", "code")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch)
        done = project.command("kedro", "run", "--env=smoke", "--params=seed=7")
    assert done.returncode == 0, done.stderr
    project.git("add", "-A")
    project.git("commit", "-qm", "run")
    return project


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    """Forget the store of another test, whose address MLflow puts into the environment, and the settings of this user."""
    isolate(monkeypatch)


def isolate(patch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        patch.setenv(name, os.devnull)
    patch.setenv("DVC_NO_ANALYTICS", "1")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def project(finished, tmp_path):
    """Return a copy of the finished project that the test may change."""
    folder = Path(shutil.copytree(finished.folder, tmp_path / "a project", symlinks=True))
    return type(finished)(folder, finished.package)
