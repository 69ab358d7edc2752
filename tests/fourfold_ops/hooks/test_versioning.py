import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DVC_YAML = """
vars: [dvc.run.yml]
stages:
  making:
    cmd: kedro run --pipelines=making ${flags} $KEDRO_RUN_FLAGS
    params: &params
      - conf/base/parameters.yml: [seed, num_threads, making]
      - conf/${environment}/parameters.yml: [making]
    deps: [CODE]
    outs: [data/01_made: {persist: true}]
  tuning:
    cmd: kedro run --pipelines=tuning ${flags} $KEDRO_RUN_FLAGS
    params:
      - conf/base/parameters.yml: [seed, num_threads, tuning]
      - conf/${environment}/parameters.yml: [tuning]
    deps: [CODE, data/01_made]
    outs: [data/02_tuned: {persist: true}]
  judging:
    cmd: kedro run --pipelines=judging ${flags} $KEDRO_RUN_FLAGS
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
    miniature.write("dvc.run.yml", 'environment: base\nflags: ""\n')
    miniature.write("dvc.yaml", DVC_YAML.replace("CODE", miniature.package))
    return miniature


@pytest.fixture
def errors(monkeypatch):
    """Return the errors that the hook logged; Kedro removes the handler of caplog when it configures logging."""
    from fourfold_ops.hooks import versioning as hook

    messages = []
    monkeypatch.setattr(hook.logger, "error", lambda text, *values: messages.append(text % values))
    return lambda: "\n".join(messages)


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


def test_lock_has_environment_and_params_of_the_run(versioned):
    versioned.run(env="smoke", runtime_params={"seed": 7})
    assert changed(versioned) == {}
    lock = yaml.safe_load((versioned.folder / "dvc.lock").read_text())["stages"]["making"]
    assert lock["cmd"] == "kedro run --pipelines=making --env=smoke --params=seed=7 $KEDRO_RUN_FLAGS"
    assert lock["params"]["conf/smoke/parameters.yml"] == {"making": {"size": 2}}
    edit(versioned, "conf/smoke/parameters.yml", "rate: 0.25", "rate: 0.125")
    assert set(changed(versioned)) == {"tuning"}
    versioned.run()
    assert changed(versioned) == {}
    assert yaml.safe_load((versioned.folder / "dvc.run.yml").read_text()) == {"environment": "base", "flags": ""}


def test_lock_is_not_written_if_it_would_be_wrong(versioned, errors):
    versioned.write("conf/local/parameters.yml", "seed: 3\n")
    versioned.run()
    assert "conf/local changes seed" in errors()
    (versioned.folder / "conf/local/parameters.yml").unlink()
    versioned.run(only_missing_outputs=True)
    assert "only part of a stage ran" in errors()
    assert not (versioned.folder / "dvc.lock").exists()


def test_run_of_one_stage_records_that_stage(versioned):
    versioned.run()
    edit(versioned, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    versioned.run(pipeline_names=["tuning"])
    assert set(changed(versioned)) == {"judging"}


def test_code_edited_during_the_run_is_not_recorded(versioned, errors):
    def edit_code(name):
        (versioned.folder / versioned.package / "extra.py").write_text("")
        return write_lock(name)

    from fourfold_ops.hooks import versioning as hook

    write_lock = hook.stage_names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "stage_names", edit_code)
        versioned.run()
    assert "edited during the run" in errors()
    assert not (versioned.folder / "dvc.lock").exists()


def test_under_dvc_repro_unrecorded_flags_stop_the_run(versioned, monkeypatch):
    from fourfold_ops.errors import UserError

    monkeypatch.setenv("DVC_STAGE", "making")
    with pytest.raises(UserError, match=r"\$KEDRO_RUN_FLAGS changes making.size, tuning.rate"):
        versioned.run(env="smoke", pipeline_names=["making"])
    versioned.run(pipeline_names=["making"])
    assert not (versioned.folder / "dvc.lock").exists()  # that is left to DVC


def test_dvc_repro_runs_only_what_a_parameter_changes(versioned, monkeypatch):
    from dvc.repo import Repo

    versioned.run()
    edit(versioned, "conf/base/parameters.yml", "rate: 0.5", "rate: 0.75")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with Repo(str(versioned.folder)) as repo:
        assert [stage.name for stage in repo.reproduce()] == ["tuning", "judging"]
    assert changed(versioned) == {}
    assert "0.75" in (versioned.folder / "dvc.lock").read_text()
