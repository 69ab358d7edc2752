"""A run is repeated on a cluster: what its driver gets, so that pods work on the data of the worktree (see tests/cluster)."""

import json
import shutil

import pytest
import yaml

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.hook import SETTINGS_VARIABLE
from fourfold_ops.kubernetes.plan.settings import read_settings
from fourfold_ops.reproduction.comparison import IDENTICAL
from fourfold_ops.reproduction.on_cluster import Site
from fourfold_ops.reproduction.origin import find_original
from fourfold_ops.reproduction.recorded_run import open_store
from fourfold_ops.reproduction.reproduce import Request, reproduce
from fourfold_ops.tracking import names

OLD, NEW = (f"registry/miniature@sha256:{digit * 64}" for digit in "12")
SITE = {
    "image": NEW,
    "volumes": [
        {"mount": "data", "claim": "data", "sub_path": "team"},
        {"mount": "inputs", "claim": "inputs", "read_only": True},
        {"mount": "/datasets", "claim": "datasets"},
    ],
    "default": {"env": {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "KEPT": "1"}},
    "tags": {"gpu": {"gpus": 1, "image": NEW, "env": {"MLFLOW_TRACKING_URI": "http://other:5000"}}},
}


def write_site(project, **changes):
    project.write("conf/mysite/kubernetes.yml", yaml.safe_dump({**SITE, **changes}))


def original_of(project, *images):
    """Return the run of HEAD, after its stages were recorded with these images."""
    client = open_store(project.folder).client
    runs = client.search_runs([run.experiment_id for run in client.search_experiments()])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    for run, image in zip(children, images, strict=False):
        client.set_tag(run.info.run_id, names.IMAGE, image)
    return find_original(project.folder, "HEAD")


def test_pods_get_the_data_of_the_worktree_the_recorded_image_and_a_record_of_their_own(project, finished):
    write_site(project)
    original, site = original_of(project, OLD, OLD), Site.of(project.folder, "mysite")
    place, seen = site.folder("twice"), {}

    def start(command, folder, environment):
        assert (folder / "data").is_dir()
        shutil.copytree(finished.folder / "data", folder / "data", dirs_exist_ok=True)
        seen.update(command=command, environment=environment)
        return 0

    request = Request(project.folder, original, (), place, {"PRECISION": "fp32"}, site=site)
    comparison, workspace = reproduce(request, start)
    assert comparison.verdict == IDENTICAL and comparison.command == "kedro run --env=smoke --params=seed=7"
    assert workspace.root == project.folder / "data/reproductions/twice/worktree"
    assert seen["command"][2:] == ["--env=smoke", "--params=seed=7", *site.arguments()]
    settings = read_settings(json.loads(seen["environment"][SETTINGS_VARIABLE]), "the environment")
    places = [(volume.mount, volume.claim, volume.sub_path) for volume in settings.volumes]
    inner = "team/reproductions/twice/worktree/data"
    assert places == [("data", "data", inner), ("inputs", "inputs", ""), ("/datasets", "datasets", "")]
    step = settings.resources_for("tune", {"gpu"})
    assert (settings.image, step.image, step.gpus) == (OLD, None, 1)
    assert step.env == {"MLFLOW_TRACKING_URI": "sqlite:////opt/project/data/mlflow.db", "KEPT": "1"}
    assert seen["environment"][handover.INHERITED] == "PRECISION" and seen["environment"]["PRECISION"] == "fp32"


def test_project_whose_data_are_a_link_to_the_volume(project, tmp_path):
    write_site(project)
    shutil.move(project.folder / "data", tmp_path / "volume")
    (project.folder / "data").symlink_to(tmp_path / "volume")
    site = Site.of(project.folder, "mysite")
    variables = site.variables(site.folder("x").resolve() / "worktree", "", [])
    volumes = read_settings(json.loads(variables[SETTINGS_VARIABLE]), "the environment").volumes
    assert volumes[0].sub_path == "team/reproductions/x/worktree/data"


def test_image_of_the_site_is_used_if_the_steps_had_several(project):
    write_site(project)
    original, site = original_of(project, OLD, NEW), Site.of(project.folder, "mysite")
    assert original.image == ""
    variables = site.variables(site.folder("x") / "worktree", original.image, [])
    settings = read_settings(json.loads(variables[SETTINGS_VARIABLE]), "the environment")
    assert (settings.image, settings.tags["gpu"].image) == (NEW, NEW)


def test_folder_that_pods_cannot_read_is_refused_before_anything_is_written(project, tmp_path):
    write_site(project)
    site = Site.of(project.folder, "mysite")
    with pytest.raises(UserError, match=r"it is on none of the volumes of conf/mysite/kubernetes\.yml") as raised:
        reproduce(Request(project.folder, original_of(project), (), tmp_path / "elsewhere", site=site))
    assert str(project.folder / "data") in raised.value.remedy
    assert not (tmp_path / "elsewhere").exists()


def test_site_without_a_writable_volume_or_without_a_file_is_refused(project):
    write_site(project, volumes=SITE["volumes"][1:])
    with pytest.raises(UserError, match="mounts no volume that pods can write to"):
        Site.of(project.folder, "mysite").folder("x")
    with pytest.raises(UserError, match=r"There is no conf/moon/kubernetes\.yml"):
        Site.of(project.folder, "moon")
