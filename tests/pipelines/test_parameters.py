"""The parameters of a run: plug-ins are loaded before the other sections are checked."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipelines.parameters import Parameters
from pipelines.sources import source_files

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text(encoding="utf-8"))
VALIDATE = """
import sys, yaml
from fourfold.data.ingestion.sources import SOURCES
from pipelines.parameters import Parameters
assert "scenes" not in SOURCES, "imported, but not loaded"
values = yaml.safe_load(open(sys.argv[1]))
Parameters.model_validate(values)
assert "scenes" in SOURCES
"""


def test_plugins_of_the_configuration_are_loaded_first():
    """In a fresh process: here other tests may have loaded the plug-in."""
    command = [sys.executable, "-c", VALIDATE, str(ROOT / "conf/base/parameters.yml")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["my_team.absent"], "Plug-in 'my_team.absent' cannot be imported: No module named 'my_team'"),
        ("fourfold.scenes", r"plugins\n.*valid tuple"),
        ([3], r"plugins.0\n.*valid string"),
    ],
)
def test_wrong_list_of_plugins_is_one_error(plugins, message):
    with pytest.raises(ValidationError, match=message):
        Parameters.model_validate(BASE | {"plugins": plugins})


@pytest.mark.parametrize("environment", sorted(path.parent.name for path in ROOT.glob("conf/*/parameters.yml")))
def test_the_parameters_of_every_environment_are_valid(environment):
    from kedro.config import OmegaConfigLoader

    from pipelines.settings import CONFIG_LOADER_ARGS

    loader = OmegaConfigLoader(str(ROOT / "conf"), env=environment, **CONFIG_LOADER_ARGS)
    Parameters.model_validate(loader["parameters"])


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("crawl", "crawl"),
        ("~/crawl", str(Path.home() / "crawl")),
        ("~/crawl/*.tar", str(Path.home() / "crawl")),
        ("/data/{00..99}/a.tar", "/data"),
        ("s3://bucket/crawl", "s3://bucket/crawl"),
        ("s3://bucket/crawl/{00..99}.tar", "s3://bucket/crawl"),
        ("gs://bucket/**/*.tar", "gs://bucket"),
    ],
)
def test_place_that_dvc_compares_is_a_file_or_folder(path, place):
    assert source_files({"ingestion": {"source": {"path": path}}}) == {
        "source": (place, "pipelines/ingestion/nodes.py"),
        "supplement": (None, "pipelines/ingestion/pipeline.py"),
    }
