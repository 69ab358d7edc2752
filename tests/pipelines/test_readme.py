"""The Python of the README runs in a clone with a finished run, and leaves nothing behind that git would report."""

import re
import shutil
import subprocess
from pathlib import Path

import mlflow

README = Path(__file__).parents[2] / "README.md"


def test_the_models_of_the_readme_load_and_leave_no_files(finished, tmp_path, monkeypatch):
    project = tmp_path / "clone"
    shutil.copytree(finished, project, symlinks=True)
    monkeypatch.chdir(project)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    mlflow.set_registry_uri(None)  # as in a new process; other tests have chosen one
    folder, registry = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    uri = re.search(r'set_tracking_uri\("(.*?)"\)', registry)[1]
    mlflow.MlflowClient(uri, registry_uri=uri).set_registered_model_alias("fourfold", "champion", "1")

    def listed() -> tuple[str, set[str]]:
        command = ["git", "status", "--porcelain", "--untracked-files=all"]
        status = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
        return status, {path.name for path in project.iterdir()}

    untouched = listed()
    try:
        values: dict = {}
        exec(folder, values)
        answers = values["model"].predict({"caption": ["a red cone"]}, ["depth"])
        exec(registry, values)
        rows = values["model"].predict({"caption": ["a red cone"]}, params={"targets": ["depth"]})
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    assert answers["depth"].shape == (1, 64, 64) and len(rows) == 1
    assert listed() == untouched
