"""`kedro reproduce` of a run whose steps ran in pods: on this machine, and by pods on the volume of the project."""

import json
import os
import subprocess

import mlflow
from projects import SITE

FILES = {
    ".gitignore": "/data/*\n/.dvc/cache\n/.dvc/tmp\n/.driver-*\n/.home\n__pycache__\n",
    ".dvcignore": "__pycache__\n",  # written by the pods or not; not what the code is
    "conf/local/.gitkeep": "",
    ".dvc/config": "[core]\n    analytics = false\n",
    "dvc.run.yml": 'environment: base\nflags: ""\n',
    "dvc.yaml": """vars: [dvc.run.yml]
stages:
  making:
    cmd: kedro run ${flags}--pipelines=making $KEDRO_RUN_FLAGS
    params: [{conf/base/parameters.yml: [making]}]
    deps: [miniature]
    outs: [{data/numbers.json: {persist: true}}]
  training:
    cmd: kedro run ${flags}--pipelines=training $KEDRO_RUN_FLAGS
    params: [{conf/base/parameters.yml: [training]}]
    deps: [miniature, data/numbers.json]
    outs: [{data/trained.json: {persist: true}}]
""",
}


def put_under_git_and_dvc(project):
    """Commit the files of the project."""
    for path, content in FILES.items():
        project.write(path, content)
    author = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    quiet = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "code")):
        subprocess.run(["git", *command], cwd=project.folder, check=True, env=quiet)


def test_a_run_of_pods_is_repeated_here_and_by_pods_with_the_same_bytes(project):
    put_under_git_and_dvc(project)
    first = project.run("--pipelines=training")
    assert first.code == 0, first.output
    made, image = project.read("trained.json"), project.image
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'data/mlflow.db'}")
    experiment = [client.get_experiment_by_name("miniature").experiment_id]
    (original,) = [run for run in client.search_runs(experiment) if "mlflow.parentRunId" not in run.data.tags]

    here = project.start("reproduce", original.info.run_id)
    assert here.wait() == 0, here.output
    assert "Reproduced: every byte of 1 outputs" in here.output and len(project.jobs()) == 1

    project.configure(image=f"localhost/newer@sha256:{'0' * 64}")  # as after a change of the code
    again = project.start("reproduce", original.info.run_id, f"--site={SITE}", "--keep")
    assert again.wait() == 0, again.output + project.describe()
    assert "Reproduced: every byte of 1 outputs" in again.output
    jobs = {job["metadata"]["name"]: job for job in project.jobs()}
    assert len(jobs) == 2 and all(job["status"].get("succeeded") == 1 for job in jobs.values())
    assert {job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs.values()} == {image}

    (folder,) = (project.folder / "data/reproductions").iterdir()
    assert json.loads((folder / "comparison.json").read_text())["verdict"] == "identical"
    assert (folder / "worktree/data/trained.json").read_bytes() == made == project.read("trained.json")
    assert (folder / "worktree/data/training/checkpoint.json").exists()  # the pod worked in the worktree
    children = client.search_runs(experiment, f"tags.`reproduction.of` = '{original.info.run_id}'")
    assert [child.data.tags["reproduction.verdict"] for child in children] == ["identical"] * 2
