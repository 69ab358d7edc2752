"""fourfold with tiny data and models and every GPU step in pods, compared with a run without a cluster."""

import hashlib
import json
import shutil
from collections import Counter

import mlflow
import numpy as np
import pytest
from projects import ALL_TAINTS, CHAIN, CHAIN_SECONDS, STEPS, Project
from test_faults import taint

SITE = {
    "volumes": [{"mount": "data", "claim": "data"}],
    "default": {
        "cpu": "300m",  # the pods of several tests fit on two cores
        "cpu_limit": "2",
        "memory": "3Gi",
        "shared_memory": "512Mi",
        "retries": 0,
        "tolerations": [ALL_TAINTS],  # a taint of another test
    },
    "tags": {"gpu": {"gpus": 1}},
    "grace_seconds": 20,
    "pending_seconds": 300,  # pods of other tests may use the simulated GPUs
}
SPLIT = ("ingest_images", "label_images")
PRETRAINING = ["--pipelines=pretraining", *CHAIN]
MODELS = "04_models/[!f]*"  # without those of fine-tuning
LABELING = ["--pipelines=pseudo_labeling", *CHAIN]


def outputs(folder, pattern="0[1-5]_*"):
    """Return the SHA-256 of every output file of the stages."""
    files = sorted(path for path in folder.glob(f"data/{pattern}/**/*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differences(expected, found):
    """Return the names of files that differ or that one side lacks."""
    return {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}


@pytest.fixture
def chain(tmp_path, own_cluster, namespace, clean_chain):
    """Return a clone of fourfold with its image and its `kubernetes.yml`."""
    made = Project(shutil.copytree(clean_chain, tmp_path / "on-cluster", symlinks=True), own_cluster, namespace)
    made.image = own_cluster.put_project("fourfold", made.folder)
    own_cluster.volume(namespace, "data", made.folder / "data")
    made.site = json.loads(json.dumps(SITE))
    made.configure()
    return made


def copy_outputs(source, target, pattern):
    """Copy outputs of earlier stages from another clone."""
    for folder in source.glob(f"data/{pattern}"):
        shutil.copytree(folder, target / "data" / folder.name, dirs_exist_ok=True)


def history(folder):
    """Return the losses of a pretraining by step."""
    return json.loads((folder / "data/04_models/pretraining/history.json").read_text())


@pytest.mark.timeout(1800)
def test_all_stages_on_the_cluster_equal_a_local_run(chain, whole_chain):
    chain.configure(nodes={step: {"shards": 2} for step in SPLIT})
    driver = chain.run(*CHAIN, seconds=CHAIN_SECONDS)
    assert driver.code == 0, driver.output[-6000:] + chain.describe()
    pods = Counter(pod["metadata"]["labels"]["kedro.org/step"] for pod in chain.pods())
    gpu_steps = {"train_labelers", "label_images", "train_all_tokenizers", "tokenize_shards", "pretrain_model", "compare_arms"}
    assert gpu_steps <= pods.keys(), pods
    assert {step: pods[step] for step in SPLIT} == dict.fromkeys(SPLIT, 3)  # two parts, then one that merges

    expected = outputs(whole_chain)
    assert len(expected) > 100
    assert differences(expected, outputs(chain.folder)) == set()

    client = mlflow.MlflowClient(f"sqlite:///{chain.folder / 'data/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("fourfold").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.info.status for run in runs} == {"FINISHED"}
    stages = sorted(run.data.tags["stage"] for run in runs if run is not parent)
    assert stages == sorted(["ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation"])
    (pretraining,) = [run for run in runs if run.data.tags.get("stage") == "pretraining"]
    assert any(len(client.get_metric_history(pretraining.info.run_id, key)) > 1 for key in pretraining.data.metrics)


@pytest.mark.timeout(1200)
def test_two_pods_with_one_killed_have_the_losses_of_one_process(chain, whole_chain):
    copy_outputs(whole_chain, chain.folder, "0[1-3]_*")
    chain.configure(nodes={"pretrain_model": {"nodes": 2, "retries": 1}})
    driver = chain.start(*chain.on_cluster(*PRETRAINING))
    chain.wait_for_log("checkpoint at step 50")
    second = next(pod["metadata"]["name"] for pod in chain.pods("Running") if "-1-" in pod["metadata"]["name"])
    chain.cluster.kubectl("exec", second, f"--namespace={chain.namespace}", "--", "sh", "-c", "kill -9 -1")
    assert driver.wait(CHAIN_SECONDS) == 0, driver.output[-6000:] + chain.describe()
    assert "esuming from step" in driver.output + "".join(chain.log(pod["metadata"]["name"]) for pod in chain.pods())
    assert sum(pod["metadata"]["labels"]["kedro.org/step"] == "pretrain_model" for pod in chain.pods("Succeeded")) == 2
    assert_same_losses(history(chain.folder), history(whole_chain))


def assert_same_losses(found, expected):
    """Compare two histories, with a tolerance: sums over two processes are rounded in another order."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert found[-1]["step"] == STEPS
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        np.testing.assert_allclose([mine[key] for key in other], list(other.values()), rtol=2e-3, err_msg=str(other["step"]))


@pytest.mark.timeout(1200)
@pytest.mark.taints
def test_a_deleted_and_then_evicted_pod_resumes_to_the_same_weights(chain, whole_chain):
    chain.configure(default={"tolerations": []})
    copy_outputs(whole_chain, chain.folder, "0[1-3]_*")
    driver = chain.start(*chain.on_cluster(*PRETRAINING))
    chain.wait_for_log("checkpoint at step 40")
    first = chain.wait_for_pod("Running", "pretrain")
    chain.cluster.kubectl("delete", "pod", first, f"--namespace={chain.namespace}", "--wait=false")
    chain.wait_for_log("checkpoint at step 100")
    taint(chain, chain.wait_for_pod("Running", "pretrain"))
    assert driver.wait(CHAIN_SECONDS) == 0, driver.output[-6000:] + chain.describe()  # with `retries: 0`
    expected = outputs(whole_chain, MODELS)
    assert any(name.endswith("model.safetensors") for name in expected)
    assert differences(expected, outputs(chain.folder, MODELS)) == set()


@pytest.mark.timeout(1200)
def test_labeling_in_four_parts_with_kills_equals_one_process(chain, whole_chain):
    copy_outputs(whole_chain, chain.folder, "01_*")
    chain.configure(nodes={"label_images": {"shards": 4, "parallelism": 2, "retries": 3}})
    driver = chain.start(*chain.on_cluster(*LABELING))
    killed = set()
    while len(killed) < 2:
        pod = chain.wait_for_pod("Running", "label", seconds=CHAIN_SECONDS)
        if pod not in killed:
            chain.cluster.kubectl("delete", "pod", pod, f"--namespace={chain.namespace}", "--grace-period=1")
            killed.add(pod)
    assert driver.wait(CHAIN_SECONDS) == 0, driver.output[-6000:] + chain.describe()
    assert differences(outputs(whole_chain, "02_labels"), outputs(chain.folder, "02_labels")) == set()
