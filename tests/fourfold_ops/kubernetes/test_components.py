"""Settings in k8s/components, checked with the libraries that read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

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
