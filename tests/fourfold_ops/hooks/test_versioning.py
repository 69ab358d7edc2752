import errno
import hashlib
import logging
import os
import shutil
import subprocess
from pathlib import Path

import preloaded
import pytest
import yaml

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_NOT_RECORDED, UserError, exit_code
from fourfold_ops.versioning import external
from fourfold_ops.versioning.external import dependencies

DVC_YAML = """
vars: [dvc.run.yml]
stages:
  making:
    cmd: kedro run ${flags}--pipelines=making $KEDRO_RUN_FLAGS
    params: &params
      - conf/base/parameters.yml: [seed, num_threads, making]
      - conf/${environment}/parameters.yml: [making]
    deps: [CODE, "${source}"]
    outs: [data/01_made: {persist: true}]
  tuning:
    cmd: kedro run ${flags}--pipelines=tuning $KEDRO_RUN_FLAGS
    params:
      - conf/base/parameters.yml: [seed, num_threads, tuning]
      - conf/${environment}/parameters.yml: [tuning]
    deps: [CODE, data/01_made]
    outs: [data/02_tuned: {persist: true}]
  judging:
    cmd: kedro run ${flags}--pipelines=judging $KEDRO_RUN_FLAGS
    params:
      - conf/base/parameters.yml: [seed, num_threads, judging]
      - conf/${environment}/parameters.yml: [judging]
    deps: [CODE, data/02_tuned]
    outs: [data/03_judged: {persist: true}]
"""


@pytest.fixture
def versioned(miniature, monkeypatch):
    """The miniature under git (without an identity) and DVC."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    subprocess.run(["git", "init", "-q"], cwd=miniature.folder, check=True)
    miniature.write(".gitignore", "/data/*\n__pycache__\n")
    miniature.write(".dvcignore", "__pycache__\n")
    miniature.write(".dvc/config", "[core]\n    analytics = false\n")
    miniature.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
    miniature.write("dvc.run.yml", f'environment: base\nflags: ""\nsource: {miniature.package}/cli.py\n')
    miniature.write("dvc.yaml", DVC_YAML.replace("CODE", miniature.package))
    return miniature


def changed(project):
    from fourfold_ops.versioning.repository import status

    return status(project.folder)


def edit(project, path, old, new):
    content = (project.folder / path).read_text()
    assert old in content
    (project.folder / path).write_text(content.replace(old, new))


def test_changed_parameter_concerns_only_dependent_stages(versioned):
    assert set(changed(versioned)) == {"making", "tuning", "judging"}
    versioned.run()
    assert changed(versioned) == {}
    edit(versioned, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    assert set(changed(versioned)) == {"tuning"}  # judging follows when tuned.json changes
    tracked = subprocess.run(["git", "status", "--porcelain"], cwd=versioned.folder, capture_output=True, text=True).stdout
    assert "data" not in tracked


def test_stages_that_only_changed_left_out_are_recorded_with_the_new_options(versioned, monkeypatch):
    versioned.run()
    options = {"runtime_params": {"tuning": {"rate": 0.75}}, "pipeline_names": ["tuning", "judging"]}
    versioned.run(**options)
    assert set(changed(versioned)) == {"making"}  # its recorded command lacks the option
    monkeypatch.setenv(handover.REUSED, "making")
    versioned.run(**options)
    assert changed(versioned) == {}


def test_lock_has_environment_and_params_of_the_run(versioned):
    versioned.run(env="smoke", runtime_params={"seed": 7})
    assert changed(versioned) == {}
    lock = yaml.safe_load((versioned.folder / "dvc.lock").read_text())["stages"]["making"]
    assert lock["cmd"] == "kedro run --env=smoke --params=seed=7 --pipelines=making $KEDRO_RUN_FLAGS"
    assert lock["params"]["conf/smoke/parameters.yml"] == {"making": {"size": 2}}
    edit(versioned, "conf/smoke/parameters.yml", "rate: 0.25", "rate: 0.125")
    assert set(changed(versioned)) == {"tuning"}
    versioned.run()
    assert changed(versioned) == {}
    assert yaml.safe_load((versioned.folder / "dvc.run.yml").read_text()) == {
        "environment": "base",
        "flags": "",
        "source": f"{versioned.package}/cli.py",
    }


def test_lock_is_not_written_if_it_would_be_wrong(versioned, monkeypatch):
    from fourfold_ops.hooks import versioning as hook

    versioned.write("conf/local/parameters.yml", "seed: 3\n")
    with pytest.raises(UserError, match="conf/local changes seed") as error:
        versioned.run()
    assert exit_code(error.value) == EXIT_NOT_RECORDED
    assert [run.info.status for run in versioned.recorded("parent")] == ["FINISHED"]
    (versioned.folder / "conf/local/parameters.yml").unlink()
    warnings = []
    monkeypatch.setattr(hook.logger, "warning", warnings.append)
    versioned.run(only_missing_outputs=True)
    assert "only part of a stage ran" in warnings[0]
    assert not (versioned.folder / "dvc.lock").exists()


def test_held_lock_of_dvc_is_reported_with_its_own_code(versioned):
    from dvc.repo import Repo

    with Repo(str(versioned.folder)) as repo, repo.lock:
        held = versioned.command("kedro", "run")
    assert held.returncode == EXIT_NOT_RECORDED, held.stderr
    last = held.stderr.strip().splitlines()[-1]
    assert "The results are complete, but dvc.lock was not written: " in last and "The same command records them" in last
    versioned.run()
    assert changed(versioned) == {}


def test_run_of_one_stage_records_that_stage(versioned):
    versioned.run()
    edit(versioned, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    versioned.run(pipeline_names=["tuning"])
    assert set(changed(versioned)) == {"judging"}


def test_code_edited_during_the_run_is_not_recorded(versioned):
    def edit_code(name):
        (versioned.folder / versioned.package / "extra.py").write_text("")
        return write_lock(name)

    from fourfold_ops.hooks import versioning as hook

    write_lock = hook.stage_names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "stage_names", edit_code)
        with pytest.raises(UserError, match="edited during the run"):
            versioned.run()
    assert not (versioned.folder / "dvc.lock").exists()


def test_under_dvc_repro_unrecorded_flags_stop_the_run(versioned, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "making")
    with pytest.raises(UserError, match=r"\$KEDRO_RUN_FLAGS changes making.size, tuning.rate"):
        versioned.run(env="smoke", pipeline_names=["making"])
    versioned.run(pipeline_names=["making"])
    assert not (versioned.folder / "dvc.lock").exists()  # that is left to DVC


def test_dvc_repro_runs_only_what_a_parameter_changes(versioned, monkeypatch, tmp_path):
    from dvc.repo import Repo

    versioned.run()
    edit(versioned, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    monkeypatch.setenv("PATH", f"{preloaded.stand_in(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}")
    with Repo(str(versioned.folder)) as repo:
        assert [stage.name for stage in repo.reproduce()] == ["tuning", "judging"]
    assert changed(versioned) == {}
    lock = (versioned.folder / "dvc.lock").read_bytes()
    assert b"0.75" in lock
    # one `dvc repro` is one run
    (_, parent), stages = versioned.recorded("parent"), [versioned.recorded(name)[-1] for name in ("tuning", "judging")]
    assert {stage.data.tags["mlflow.parentRunId"] for stage in stages} == {parent.info.run_id}
    assert (parent.info.status, parent.data.tags["run.stages"]) == ("FINISHED", "tuning, judging")
    assert parent.data.tags["kedro.command"] == "kedro run --pipelines=tuning,judging"
    # with the lock as DVC has written it after the last process
    assert parent.data.tags["dvc.lock_md5"] == hashlib.md5(lock).hexdigest() and parent.data.tags["dvc.recorded"] == "true"
    recorded = versioned.folder / "data/mlflow_artifacts" / parent.info.run_id / "artifacts/provenance/dvc.lock"
    assert recorded.read_bytes() == lock


def test_file_added_to_a_source_changes_the_status(versioned, tmp_path, monkeypatch):
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.png").write_bytes(b"a")
    monkeypatch.setenv("MINIATURE_SOURCE", str(source))
    versioned.run()
    assert changed(versioned) == {}
    lock = (versioned.folder / "dvc.lock").read_bytes()
    (source / "b.png").write_bytes(b"b")
    assert changed(versioned) == {"making": [{"changed deps": {str(source): "modified"}}]}
    versioned.run()
    assert changed(versioned) == {} and (versioned.folder / "dvc.lock").read_bytes() != lock
    (source / "b.png").unlink()
    versioned.run()
    assert (versioned.folder / "dvc.lock").read_bytes() == lock


def test_files_of_a_source_are_looked_at_only_with_the_stage_that_reads_them(versioned, tmp_path, monkeypatch):
    from fourfold_ops.hooks import versioning as hook

    source, warnings = tmp_path / "photos", []
    source.mkdir()
    monkeypatch.setenv("MINIATURE_SOURCE", str(source))
    monkeypatch.setattr(hook.logger, "warning", warnings.append)
    versioned.run(pipeline_names=["making"])
    (source / "x.png").symlink_to("nowhere")
    versioned.run(pipeline_names=["tuning"])
    recorded = (versioned.folder / "dvc.run.yml").read_text()
    assert f'source: "{source}"' in recorded and not warnings
    for _ in range(2):  # the second run changes nothing and says nothing
        versioned.run(pipeline_names=["making"])
        assert len(warnings) == 1 and warnings[0].startswith(f"`dvc status` does not compare {source}: ")
    assert "making" not in changed(versioned)


def test_links_to_files_are_compared(versioned, tmp_path, monkeypatch):
    source = tmp_path / "photos"
    source.mkdir()
    (tmp_path / "a.png").write_bytes(b"a")
    (source / "a.png").symlink_to(tmp_path / "a.png")
    monkeypatch.setenv("MINIATURE_SOURCE", str(source))
    versioned.run(pipeline_names=["making"])
    assert "making" not in changed(versioned)
    (tmp_path / "a.png").write_bytes(b"bb")
    assert changed(versioned)["making"] == [{"changed deps": {str(source): "modified"}}]


@pytest.fixture
def photos(tmp_path):
    """A folder with two files of 4 bytes."""
    (tmp_path / "photos/deep").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / f"photos/deep/{name}.png").write_bytes(b"four")
    return tmp_path / "photos"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "name", "missing", "project"])
def test_what_dvc_cannot_hash_is_named_and_left_to_the_run(photos, tmp_path, kind):
    place, deep = str(photos), photos / "deep"
    if kind == "link":
        (deep / "x.png").symlink_to("nowhere")
        reason = f"{deep}/x.png is a link that leads nowhere"
    elif kind == "folder":
        (deep / "x").symlink_to(tmp_path)
        reason = f"{deep}/x is a linked folder"
    elif kind == "pipe":
        os.mkfifo(deep / "x.png")
        reason = f"{deep}/x.png is not a file"
    elif kind == "name":
        Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9")).mkdir()
        reason = f"the name {photos}/caf\\xe9 is not UTF-8"
    elif kind == "missing":
        place, reason = str(tmp_path / "gone"), f"{tmp_path}/gone cannot be read (No such file or directory)"
    else:
        place, reason = ".", f"{tmp_path} contains this project"
    found, (note,) = dependencies(tmp_path, {"source": (place, "instead")})
    assert found == {"source": "instead"}
    assert note == f"`dvc status` does not compare {place}: {reason}. `kedro run` compares it by itself."


@pytest.mark.parametrize("place", ["photos", "photos/deep/a.png", None])
def test_what_dvc_can_hash_is_a_dependency(photos, place):
    assert dependencies(photos.parent, {"source": (place, "instead")}) == ({"source": place or "instead"}, [])


@pytest.mark.parametrize(
    ("limit", "value", "place", "reason"),
    [
        ("MAX_FILES", 1, "photos", "it has more than 1 files"),
        ("MAX_FILES", 2, "photos", ""),
        ("MAX_BYTES", 7, "photos", "it has more than 0 GB"),
        ("MAX_BYTES", 8, "photos", ""),
        ("MAX_BYTES", 3, "photos/deep/a.png", "it has more than 0 GB"),
    ],
)
def test_large_source_is_not_hashed(photos, monkeypatch, limit, value, place, reason):
    monkeypatch.setattr(external, limit, value)
    assert external.obstacle_in(place, photos.parent) == reason


def test_walk_ends_at_the_limit(photos, monkeypatch):
    monkeypatch.setattr(external, "MAX_FILES", 0)
    for number in range(100):
        (photos / f"{number}").mkdir()
        (photos / f"{number}/a.png").touch()
    walked, scandir = [], os.scandir
    monkeypatch.setattr(external.os, "scandir", lambda folder: walked.append(folder) or scandir(folder))
    assert external.obstacle_in("photos", photos.parent) == "it has more than 0 files"
    assert len(walked) == 2


@pytest.mark.parametrize(
    ("place", "result"),
    [
        ("s3://bucket/crawl", "s3://bucket/crawl"),
        ("gcs://bucket/crawl", "gs://bucket/crawl"),
        ("abfs://container/crawl", "azure://container/crawl"),
        ("abfs://container@account/crawl", "DVC does not read such abfs:// folders"),
        ("https://example.org/crawl", "DVC does not read such https:// folders"),
        ("memory://crawl", "DVC does not read such memory:// folders"),
    ],
)
def test_address_is_as_dvc_writes_it(tmp_path, monkeypatch, place, result):
    monkeypatch.setattr(external.importlib.util, "find_spec", lambda name: name)
    found, notes = dependencies(tmp_path, {"source": (place, "instead")})
    assert notes == [] if found["source"] == result else (found["source"] == "instead" and f"{place}: {result}." in notes[0])
    monkeypatch.setattr(external.importlib.util, "find_spec", lambda name: None)
    assert dependencies(tmp_path, {"source": (place, "instead")})[0] == {"source": "instead"}


def test_package_of_an_address_is_named(tmp_path):
    assert external.obstacle_in("az://container/crawl", tmp_path) == "the package dvc-azure is not installed"


def test_only_an_error_of_dvc_is_taken_as_the_reason():
    from fourfold_ops.versioning import repository

    with repository._first_error() as first:
        logger = logging.getLogger("dvc.objects")
        for level, error in (
            (logging.DEBUG, KeyError("attempt")),
            (logging.ERROR, OSError("full")),
            (logging.ERROR, ValueError()),
        ):
            logger.log(level, "failed", exc_info=error)
    assert str(first.error) == "full"


def test_full_disk_while_outputs_are_copied_is_one_line(versioned, capfd):
    """DVC logs one traceback for each file, and raises an error without the reason."""
    from fourfold_ops.versioning import repository

    versioned.run()
    shutil.rmtree(versioned.folder / ".dvc/cache")
    Path(".dvc/cache").symlink_to("/dev/full")  # no folder can be made there
    with pytest.raises(OSError):
        repository.commit_stages(versioned.folder, ["making"])
    assert "Traceback" not in capfd.readouterr().err


def test_lock_survives_a_failed_commit(versioned, monkeypatch):
    from dvc.dvcfile import ProjectFile

    from fourfold_ops.versioning import repository

    versioned.run()
    lock = versioned.folder / "dvc.lock"
    before = lock.read_bytes()

    def half(*arguments, **options):
        lock.write_bytes(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ProjectFile, "dump_stages", half)
    with pytest.raises(OSError, match="No space left"):
        repository.commit_stages(versioned.folder, ["making"])
    assert lock.read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"schema: '2.0'\nstages:\n  making: {cmd", b"\xff\xfe"])
def test_damaged_lock_is_set_aside_and_written_again(versioned, damage, monkeypatch):
    from fourfold_ops.versioning import repository

    warnings = []
    monkeypatch.setattr(repository.logger, "warning", lambda *text: warnings.append(text[0] % text[1:]))
    versioned.run()
    lock = versioned.folder / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(damage)
    versioned.run()
    assert lock.read_bytes() == whole
    assert (versioned.folder / "dvc.lock.damaged").read_bytes() == damage
    assert len(warnings) == 1 and "dvc.lock was damaged" in warnings[0]


def test_params_that_cannot_be_recorded_are_refused_before_the_run(versioned):
    with pytest.raises(UserError, match=r"--params=making.note=a,b cannot be recorded") as caught:
        versioned.run(runtime_params={"making": {"note": "a,b"}})
    assert exit_code(caught.value) == EXIT_CONFIGURATION
    assert not (versioned.folder / "data/01_made").exists()
