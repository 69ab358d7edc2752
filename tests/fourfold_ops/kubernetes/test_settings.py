import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.settings import BUILT_IN, KubernetesSettings, Request, read_settings

IMAGE = "registry.example/fourfold@sha256:" + "0" * 64


def settings(**values):
    return read_settings({"image": IMAGE, **values}, "conf/site/kubernetes.yml")


def test_a_node_gets_the_default_under_what_its_tags_say_under_what_its_name_says():
    site = settings(
        default={"cpu": 2, "memory": "8Gi", "env": {"A": "1", "B": "1"}},
        tags={"gpu": {"gpus": 1, "memory": "64Gi", "env": {"B": "2"}}},
        nodes={"pretrain": {"gpus": 8, "nodes": 4}},
    )
    pretrain = site.request_for("pretrain", {"gpu"})
    assert (pretrain.cpu, pretrain.memory, pretrain.gpus, pretrain.nodes) == ("2", "64Gi", 8, 4)
    assert pretrain.env == {"A": "1", "B": "2"}
    assert pretrain.retries == BUILT_IN.retries
    assert pretrain.remote is True


def test_a_node_that_nothing_makes_remote_runs_in_the_driver():
    assert settings(tags={"gpu": {}}).request_for("report", {"evaluation"}).remote is False
    assert settings(remote="all").request_for("report", {"evaluation"}).remote is True
    assert settings(tags={"gpu": {}}, nodes={"small": {"remote": False}}).request_for("small", {"gpu"}).remote is False


def test_a_node_may_say_what_it_needs_by_tags_alone():
    request = settings().request_for("train", {"gpus-2", "memory-64Gi", "nodes-3", "unrelated-7"})
    assert (request.gpus, request.memory, request.nodes, request.remote) == (2, "64Gi", 3, True)


def test_tags_that_contradict_each_other_are_refused_by_name():
    site = settings(tags={"big": {"memory": "64Gi"}, "small": {"memory": "1Gi"}})
    with pytest.raises(UserError, match=r"Node 'train': its tags ask for memory = '64Gi' and, by tag 'small', '1Gi'"):
        site.request_for("train", {"big", "small"})


def test_every_problem_of_the_file_is_listed_with_what_is_allowed():
    with pytest.raises(UserError) as error:
        settings(tags={"gpu": {"gpu": 1}}, default={"memory": "lots"}, ttl_seconds=1)
    text = str(error.value)
    assert "conf/site/kubernetes.yml is not valid" in text
    assert "tags.gpu.gpu is an unknown key. Did you mean 'gpus'?" in text
    assert "default.memory = 'lots'" in text and "ttl_seconds = 1" in text


def test_an_image_is_named_by_digest_unless_the_site_says_otherwise():
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


def test_nobody_is_root():
    with pytest.raises(UserError, match=r"security.user = 0"):
        settings(security={"user": 0})


def test_settings_and_requests_have_no_place_for_a_scientific_parameter():
    """WHERE never changes WHAT: there is no free-form section that a node could read, and unknown keys are refused."""
    free = {
        name
        for model in (KubernetesSettings, Request)
        for name, field in model.model_fields.items()
        if "Any" in str(field.annotation)
    }
    assert free == {"tolerations"}
