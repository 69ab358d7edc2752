"""Manifests against golden YAML.

After a deliberate change run this file with UPDATE_GOLDEN=1 and review the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from fourfold_ops.kubernetes.manifests.job import job, service
from fourfold_ops.kubernetes.manifests.pod import resource_requirements
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.settings import BUILT_IN, KubernetesSettings, Resources

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example/fourfold@sha256:" + "0" * 64
SETTINGS = KubernetesSettings(
    image=IMAGE,
    namespace="training",
    volumes=({"mount": "data", "claim": "fourfold-data"}, {"mount": "/models", "claim": "models", "read_only": True}),
    secrets=({"name": "mlflow"}, {"name": "bucket", "keys": {"AWS_ACCESS_KEY_ID": "id"}}),
    pull_secrets=("registry",),
)
LABELS = names.labels("fourfold", "fourfold-0a1b2c3d", "pretrain_model")


def spec(name: str, parts: tuple[int, ...] = (), **resources: Any) -> JobSpec:
    complete = Resources(**resources).over(BUILT_IN)
    command = ("kedro", "run", "--nodes=pretrain_model", "--runner=fourfold_ops.kubernetes.StepRunner")
    env = {"KEDRO_STEP": "pretraining/pretrain_model"}
    return JobSpec(name, command, complete, LABELS, {names.TITLE: "pretraining/pretrain_model"}, env, parts)


SPECS = {
    "one-gpu": spec("pretrain-model-0123456789", gpus=1, memory="64Gi", cpu="8", shared_memory="8Gi", deadline_seconds=3600),
    "two-nodes-of-eight": spec("pretrain-model-0123456789", nodes=2, gpus=8, memory="512Gi", retries=5),
    "four-parts": spec("label-images-0123456789", parts=(0, 1, 2, 3), shards=4, parallelism=2, gpus=1),
    "failed-parts-again": spec("label-images-0123456789", parts=(1, 3), shards=4, gpus=1),
    "placed": spec(
        "pretrain-model-0123456789",
        gpus=1,
        gpu_resource="nvidia.com/mig-3g.20gb",
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        node_selector={"cloud.example/accelerator": "h200"},
        cpu="4",
        cpu_limit="8",
        priority_class="training",
        queue="research",
        env={"NCCL_DEBUG": "WARN"},
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_manifests_equal_the_golden_files(name):
    found = [job(SPECS[name], SETTINGS)]
    if SPECS[name].num_nodes > 1:
        found.append(service(SPECS[name], SETTINGS, "1b4e28ba-2fa1-11d2-883f-0016d3cca427"))
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(found, sort_keys=False))
    assert found == list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("name", SPECS)
def test_pods_fulfill_pod_security_restricted(name):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, the rules that our pods could break."""
    pod = job(SPECS[name], SETTINGS)["spec"]["template"]["spec"]
    assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(key for key in volume if key != "name") for volume in pod["volumes"]} <= {"emptyDir", "persistentVolumeClaim"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("resources", "limit"),
    [({"cpu": "2"}, "2"), ({"cpu": "500m", "cpu_limit": "2"}, "2"), ({"cpu": "8", "cpu_limit": "900m"}, "8")],
)
def test_the_cpu_limit_is_at_least_the_request(resources, limit):
    found = resource_requirements(Resources(**resources).over(BUILT_IN))
    assert (found["requests"]["cpu"], found["limits"]["cpu"]) == (resources["cpu"], limit)


@pytest.mark.parametrize("name", SPECS)
def test_jobs_and_pods_carry_our_labels(name):
    found = job(SPECS[name], SETTINGS)
    for metadata in (found["metadata"], found["spec"]["template"]["metadata"]):
        assert LABELS.items() <= metadata["labels"].items()


@pytest.mark.parametrize("name", SPECS)
def test_every_field_exists_in_the_models_of_the_client(name):
    """The models are generated from the specification of the API; parsing drops unknown fields."""
    from kubernetes.client import ApiClient

    found = job(SPECS[name], SETTINGS)
    api = ApiClient()
    parsed = api.deserialize(json.dumps(found), "V1Job", "application/json")
    assert api.sanitize_for_serialization(parsed) == found


def test_a_queue_is_a_label_and_kueue_suspends_the_job():
    found = job(SPECS["placed"], SETTINGS)
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "suspend" not in found["spec"]


def test_a_volume_can_be_a_folder_of_the_node():
    settings = SETTINGS.model_copy(update={"volumes": (type(SETTINGS.volumes[0])(mount="data", host_path="/srv/data"),)})
    volume = job(SPECS["one-gpu"], settings)["spec"]["template"]["spec"]["volumes"][0]
    assert volume == {"name": "shared-0", "hostPath": {"path": "/srv/data", "type": "Directory"}}
