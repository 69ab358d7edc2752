import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.settings import BUILT_IN, KubernetesSettings, Resources, read_settings

IMAGE = "registry.example/fourfold@sha256:" + "0" * 64


def settings(**values):
    return read_settings({"image": IMAGE, **values}, "conf/site/kubernetes.yml")


def test_names_override_tags_and_tags_override_the_default():
    site = settings(
        default={"cpu": 2, "memory": "8Gi", "env": {"A": "1", "B": "1"}},
        tags={"gpu": {"gpus": 1, "memory": "64Gi", "env": {"B": "2"}}},
        nodes={"pretrain": {"gpus": 8, "nodes": 4}},
    )
    pretrain = site.resources_for("pretrain", {"gpu"})
    assert (pretrain.cpu, pretrain.memory, pretrain.gpus, pretrain.nodes) == ("2", "64Gi", 8, 4)
    assert pretrain.env == {"A": "1", "B": "2"}
    assert pretrain.retries == BUILT_IN.retries
    assert pretrain.remote is True


def test_a_node_without_settings_runs_in_the_driver():
    assert settings(tags={"gpu": {}}).resources_for("report", {"evaluation"}).remote is False
    assert settings(remote="all").resources_for("report", {"evaluation"}).remote is True
    assert settings(tags={"gpu": {}}, nodes={"small": {"remote": False}}).resources_for("small", {"gpu"}).remote is False


def test_tags_can_carry_resources():
    resources = settings().resources_for("train", {"gpus-2", "memory-64Gi", "nodes-3", "unrelated-7"})
    assert (resources.gpus, resources.memory, resources.nodes, resources.remote) == (2, "64Gi", 3, True)


def test_contradicting_tags_are_refused():
    site = settings(tags={"big": {"memory": "64Gi"}, "small": {"memory": "1Gi"}})
    with pytest.raises(UserError, match=r"Node 'train': its tags set memory = '64Gi' and, by tag 'small', '1Gi'"):
        site.resources_for("train", {"big", "small"})


def test_every_problem_of_the_file_is_listed():
    with pytest.raises(UserError) as error:
        settings(tags={"gpu": {"gpu": 1}}, default={"memory": "lots"}, ttl_seconds=1)
    text = str(error.value)
    assert "conf/site/kubernetes.yml is not valid" in text
    assert "tags.gpu.gpu is an unknown key. Did you mean 'gpus'?" in text
    assert (
        "default.memory = 'lots': Input should be a Kubernetes quantity, e.g. 500m, 2 or 64Gi" in text
        and "ttl_seconds = 1" in text
    )


def test_an_image_needs_a_digest_unless_tags_are_allowed():
    with pytest.raises(UserError, match="not named by digest"):
        settings(image="fourfold:latest")
    with pytest.raises(UserError, match="not named by digest"):
        settings(tags={"gpu": {"image": "fourfold:cuda"}})
    assert settings(image="fourfold:latest", allow_tag=True).image == "fourfold:latest"
    assert settings(image="localhost/fourfold", pull_policy="Never")


def test_a_volume_has_one_source():
    for source in ({}, {"claim": "data", "host_path": "/srv"}):
        with pytest.raises(UserError, match="needs one of claim and host_path"):
            settings(volumes=[{"mount": "data", **source}])


def test_root_is_refused():
    with pytest.raises(UserError, match=r"security.user = 0"):
        settings(security={"user": 0})


def test_settings_cannot_carry_scientific_parameters():
    """Where a step runs must not change what it computes: there is no free-form section, and unknown keys are refused."""
    free = {
        name
        for model in (KubernetesSettings, Resources)
        for name, field in model.model_fields.items()
        if "Any" in str(field.annotation)
    }
    assert free == {"tolerations"}


@pytest.mark.parametrize("cpu", ["16Gi", "-1", "two", ""])
def test_a_number_of_cores_is_checked(cpu):
    with pytest.raises(UserError, match=r"default.cpu = '.*': Input should be a (number of cores|Kubernetes quantity)"):
        settings(default={"cpu": cpu})


def test_built_in_settings_are_valid():
    assert Resources.model_validate(BUILT_IN.model_dump()) == BUILT_IN
