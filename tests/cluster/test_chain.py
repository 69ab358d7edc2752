"""The project itself: the whole chain on the tiny world, with every GPU step in pods, against a run without a cluster."""

import hashlib
import json
import shutil
import subprocess

import mlflow
import pytest
from projects import CHECKOUT, Project

TIMED = {"metrics.json", "report.html"}  # they tell seconds; metrics.json is compared without them
SITE = {
    "volumes": [{"mount": "data", "claim": "data"}],
    "default": {"cpu": "1800m", "memory": "3Gi", "shared_memory": "512Mi"},  # of two cores
    "tags": {"gpu": {"gpus": 1}},
    "nodes": {"label_images": {"shards": 2, "cpu": "900m"}},
    "grace_seconds": 20,
}
CHAIN_SECONDS = 1200


def clone(target):
    """Copy what git tracks or would track, as it is in the working tree, into a repository of its own."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, target / name)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "clone"]):
        subprocess.run(["git", *command], cwd=target, check=True)
    (target / ".home").mkdir()
    return target


def outputs(folder):
    """Return the SHA-256 of every file that a stage has left."""
    files = sorted(path for path in folder.glob("data/0[1-5]_*/**/*") if path.is_file() and path.name not in TIMED)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def chain(tmp_path, own_cluster, namespace):
    """Return the project in a clone, its image and its site."""
    made = Project(clone(tmp_path / "on-cluster"), own_cluster, namespace)
    made.image = own_cluster.put_project("fourfold", made.folder)
    own_cluster.volume(namespace, "data", made.folder / "data")
    made.site = dict(SITE)
    made.configure()
    return made


@pytest.mark.timeout(3000)
def test_the_whole_chain_on_the_cluster_gives_the_bytes_of_a_run_without_it_and_one_tree_of_recorded_runs(chain, tmp_path):
    local = Project(clone(tmp_path / "alone"), chain.cluster, chain.namespace).start("run", "--env=smoke")
    assert local.wait(CHAIN_SECONDS) == 0, local.output[-4000:]

    driver = chain.run("--env=smoke", seconds=CHAIN_SECONDS)
    assert driver.code == 0, driver.output[-6000:] + chain.describe()
    pods = {pod["metadata"]["labels"]["kedro.org/step"] for pod in chain.pods()}
    gpu_steps = {"train_labelers", "label_images", "train_all_tokenizers", "tokenize_shards", "pretrain_model", "compare_arms"}
    assert gpu_steps <= pods, pods

    wanted, found = outputs(tmp_path / "alone"), outputs(chain.folder)
    assert len(wanted) > 100
    assert {name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)} == set()
    tables = [
        json.loads((folder / "data/05_reports/metrics.json").read_text()) for folder in (tmp_path / "alone", chain.folder)
    ]
    for table in tables:
        table.pop("seconds")
    assert tables[0] == tables[1]

    client = mlflow.MlflowClient(f"sqlite:///{chain.folder / 'data/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("fourfold").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.info.status for run in runs} == {"FINISHED"}
    stages = sorted(run.data.tags["stage"] for run in runs if run is not parent)
    assert stages == sorted(["ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation"])
    (pretraining,) = [run for run in runs if run.data.tags.get("stage") == "pretraining"]
    assert any(len(client.get_metric_history(pretraining.info.run_id, key)) > 1 for key in pretraining.data.metrics)
