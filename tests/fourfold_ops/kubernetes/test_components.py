"""Settings in k8s/components, checked with the libraries that read them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from fourfold_ops.server.app import create_app
from fourfold_ops.server.batching import Batcher, Limits
from fourfold_ops.server.command import serve
from fourfold_ops.server.metrics import Metrics

K8S = Path(__file__).parents[3] / "k8s"


def patched_values(component: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of every operation in the patches of a component."""
    content = yaml.safe_load((K8S / "components" / component / "kustomization.yaml").read_text())
    for patch in content["patches"]:
        for operation in yaml.safe_load(patch["patch"]):
            yield operation["path"], operation["value"]


def test_the_image_of_mlflow_contains_the_driver_of_postgres():
    (address,) = (
        value["value"]
        for _, value in patched_values("postgres")
        if isinstance(value, dict) and value["name"] == "MLFLOW_BACKEND_STORE_URI"
    )
    driver = make_url(address).get_driver_name()  # SQLAlchemy 2.1 chooses psycopg if the address names none
    assert f"\n{driver}-binary==" in (K8S / "image/tracking.lock").read_text()


@pytest.mark.parametrize("component", ["artifacts-bucket", "postgres"])
def test_no_setting_is_empty(component):
    for path, value in patched_values(component):
        assert value != "", f"{path}: boto3 refuses an empty endpoint"


def test_serving_uses_options_and_pages_that_exist():
    documents = list(yaml.safe_load_all((K8S / "components/serving/server.yaml").read_text()))
    (deployment,) = (one for one in documents if one["kind"] == "Deployment")
    (service,) = (one for one in documents if one["kind"] == "Service")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    context = serve.make_context("serve", container["command"][2:])  # click refuses an unknown option
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    pages = {route.path for route in create_app(Batcher(Limits(), Metrics()), Metrics(), lambda: asyncio.sleep(0)).routes}
    assert {container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")} == {"/health", "/ready"}
    assert pages >= {"/health", "/ready", deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]}


def test_pods_of_servers_are_hardened_alike():
    found = []
    for component in ("mlflow", "serving"):
        documents = yaml.safe_load_all((K8S / "components" / component / "server.yaml").read_text())
        (pod,) = (one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment")
        unset = {"fsGroup", "fsGroupChangePolicy"}  # for a volume that is written
        of_pod = {key: value for key, value in pod["securityContext"].items() if key not in unset}
        found.append((of_pod, pod["containers"][0]["securityContext"], pod["automountServiceAccountToken"]))
    assert found[0] == found[1]
