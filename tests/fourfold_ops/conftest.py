"""A miniature Kedro project with three stages, to try the platform on without any science."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PYPROJECT = """
[tool.kedro]
package_name = "{package}"
project_name = "miniature"
kedro_init_version = "1.7.0"
source_dir = "."
"""
PARAMETERS = """
from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(3, ge=1)


class Tuning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: float = 0.5
    fail: bool = False


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seed: int
    num_threads: int = 1
    making: Part
    tuning: Tuning
    judging: Part
"""
REGISTRY = """
import json
import os
import signal
from pathlib import Path

from kedro.pipeline import Pipeline, node


def make(making, seed, folder):
    (folder / "numbers.json").write_text(json.dumps([seed + i for i in range(making["size"])]))
    return folder


def tune(folder, tuning, log):
    if os.environ.get("MINIATURE_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if tuning["fail"]:
        raise ValueError("The rate is too high. Lower tuning.rate.")
    numbers = json.loads((folder / "numbers.json").read_text())
    for step, number in enumerate(numbers):
        log.log_metrics({"loss": number * tuning["rate"]}, step=step)
    return {"sum": sum(numbers) * tuning["rate"]}


def judge(tuned, judging):
    return "<html>" + "!" * judging["size"] + str(tuned["sum"]) + "</html>"


def register_pipelines():
    stages = {
        "making": Pipeline([node(make, ["params:making", "params:seed", "made_folder"], "made", name="make_numbers")]),
        "tuning": Pipeline([node(tune, ["made", "params:tuning", "metric_log"], "tuned", name="tune_numbers")]),
        "judging": Pipeline([node(judge, ["tuned", "params:judging"], "report", name="judge_numbers")]),
    }
    return {"__default__": sum(stages.values(), Pipeline([])), **stages}
"""
SETTINGS = """
from fourfold_ops.hooks.parameters import ParametersHook
from fourfold_ops.hooks.location import ErrorLocationHook
from fourfold_ops.hooks.summary import SummaryHook
from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.hooks.versioning import VersioningHook

CHECKS = (ParametersHook("{package}.parameters.Parameters"), ErrorLocationHook())
HOOKS = (*CHECKS, TrackingHook(), VersioningHook(), SummaryHook())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro-viz")
CONFIG_LOADER_ARGS = {{
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {{"parameters": "soft", "catalog": "soft", "tracking": "soft"}},
    "config_patterns": {{"tracking": ["tracking*"]}},
}}
"""
CLI = """
import click
from kedro.framework.cli.project import run

from fourfold_ops.cli.failures import with_clear_errors


@click.group()
def cli():
    pass


cli.add_command(with_clear_errors(run), "run")
"""
CATALOG = """
made_folder: {type: fourfold_ops.datasets.WorkspaceDataset, path: data/01_made}
made: {type: fourfold_ops.datasets.FolderDataset, path: data/01_made}
tuned: {type: fourfold_ops.datasets.JsonDataset, filepath: data/02_tuned/tuned.json}
report: {type: fourfold_ops.datasets.TextDataset, filepath: data/03_judged/report.html, metadata: {show: Report}}
metric_log: {type: fourfold_ops.datasets.MetricLogDataset}
"""
BASE = """
seed: 0
num_threads: 1
making: {size: 3}
tuning: {rate: 0.5, fail: false}
judging: {size: 1}
"""
SMOKE = """
making: {size: 2}
tuning: {rate: 0.25}
judging: {}
"""
TRACKING = "{uri: 'sqlite:///data/mlflow.db', artifacts: data/mlflow_artifacts, experiment: miniature}\n"
_numbers = itertools.count()


class Miniature:
    """The folder of the project, and ways to run it."""

    def __init__(self, folder: Path, package: str) -> None:
        self.folder, self.package = folder, package

    def run(self, **options: Any) -> Any:
        """Run in this process; `env`, `runtime_params` and what `KedroSession.run` takes."""
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        bootstrap_project(self.folder)
        create = {key: options.pop(key) for key in ("env", "runtime_params") if key in options}
        with KedroSession.create(self.folder, save_on_close=False, **create) as session:
            return session.run(**options)

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `kedro` as a user does."""
        binaries = Path(sys.executable).parent
        return subprocess.run(
            [str(binaries / arguments[0]), *arguments[1:]],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{binaries}:{os.environ['PATH']}",
                "DO_NOT_TRACK": "1",
                "DVC_NO_ANALYTICS": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    def client(self) -> Any:
        """Return a client of its MLflow store."""
        import mlflow

        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'data/mlflow.db'}")

    def recorded(self, name: str) -> list[Any]:
        """Return the recorded runs of a stage, or the parents ("parent"), oldest first."""
        client = self.client()
        experiment = client.get_experiment_by_name("miniature").experiment_id
        runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        return [run for run in runs if run.data.tags.get("stage", "parent") == name]

    def write(self, path: str, content: str) -> None:
        """Write a file of the project."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow store. Creating its tables takes seconds, so it is created once and copied."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Miniature:
    """Return a new miniature project in the current folder, whose name contains a space."""
    package = f"miniature_{os.getpid()}_{next(_numbers)}"
    project = Miniature(tmp_path / "a project", package)
    project.write("pyproject.toml", PYPROJECT.format(package=package))
    files = {"__init__": "", "parameters": PARAMETERS, "pipeline_registry": REGISTRY, "cli": CLI}
    for name, content in {**files, "settings": SETTINGS.format(package=package)}.items():
        project.write(f"{package}/{name}.py", content)
    for path, content in {
        "base/catalog": CATALOG,
        "base/parameters": BASE,
        "base/tracking": TRACKING,
        "smoke/parameters": SMOKE,
    }.items():
        project.write(f"conf/{path}.yml", content)
    for folder in ("conf/local", "data"):
        (project.folder / folder).mkdir()
    shutil.copy(empty_store, project.folder / "data/mlflow.db")
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project
