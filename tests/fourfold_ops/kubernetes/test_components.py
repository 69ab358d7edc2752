"""k8s/components say what their parts understand. The judge is the library that reads it, in the version that the image has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

K8S = Path(__file__).parents[3] / "k8s"


def said_by_patches(component: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of every operation of a component's patches."""
    content = yaml.safe_load((K8S / "components" / component / "kustomization.yaml").read_text())
    for patch in content["patches"]:
        for operation in yaml.safe_load(patch["patch"]):
            yield operation["path"], operation["value"]


def test_the_driver_with_which_mlflow_asks_postgres_is_in_its_image():
    (address,) = (
        value["value"]
        for _, value in said_by_patches("postgres")
        if isinstance(value, dict) and value["name"] == "MLFLOW_BACKEND_STORE_URI"
    )
    driver = make_url(address).get_driver_name()  # sqlalchemy 2.1 takes psycopg where none is named
    assert f"\n{driver}-binary==" in (K8S / "image/tracking.lock").read_text()


@pytest.mark.parametrize("component", ["artifacts-bucket", "postgres"])
def test_no_setting_is_there_and_empty(component):
    for place, value in said_by_patches(component):
        assert value != "", f"{place}: boto3 takes an empty endpoint for a wrong one"
