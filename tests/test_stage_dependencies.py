"""An edit makes exactly those stages run again that can reach the edited code, for `kedro run` and for `dvc repro`."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
REPORT, MASKING = "src/fourfold/evaluation/report/page.py", "src/fourfold/masking/masker.py"
# Modules whose functions claim a folder, with the stage that calls them.
CLAIMS = {
    "ingestion": ["fourfold.data.ingestion.ingest"],
    "pseudo_labeling": ["fourfold.labelers.teachers", "fourfold.labelers.labeling", "fourfold.labelers.integration"],
    "tokenizer_training": ["fourfold.tokenizers.training.tokenizer_set", "fourfold.tokenizers.pretokenizing"],
    "pretraining": ["fourfold.pretraining.pretrain"],
    "finetuning": ["fourfold.transfer.finetuning"],
}
DIGESTS = """
import json, sys
from fourfold.source_code import module_digests
print(json.dumps({stage: module_digests(modules) for stage, modules in json.loads(sys.argv[1]).items()}))
"""


def test_dvc_names_the_code_that_each_stage_reaches():
    spec = importlib.util.spec_from_file_location("stage_dependencies", ROOT / ".ci/stage_dependencies.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    wanted = script.written(text, script.stage_dependencies())
    assert wanted == text, f"Run `python .ci/stage_dependencies.py`, which makes dvc.yaml:\n{wanted}"


def test_pretraining_reaches_neither_evaluation_nor_labelers():
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["pretraining"]["deps"]
    assert "src/fourfold/masking" in deps
    assert not {"src/fourfold", "src/fourfold/evaluation", "src/fourfold/labelers", "src/fourfold/transfer"} & set(deps)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code and its configuration, where each stage has left a file as its result."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "pipelines", "conf", ".dvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache", "*.egg-info"))
    for name in ("dvc.yaml", "dvc.run.yml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for out in [next(iter(out)) for stage in stages.values() for out in stage["outs"]]:
        (folder / out).mkdir(parents=True)
        (folder / out / "result.json").write_text("{}")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def edit(folder: Path, path: str, text: str):
    """Append to a file of the copy; return a function that restores it."""
    original = (folder / path).read_text(encoding="utf-8")
    (folder / path).write_text(original + text, encoding="utf-8")
    return lambda: (folder / path).write_text(original, encoding="utf-8")


def changed_claims(folder: Path, before: dict) -> set[str]:
    after = claims(folder)
    return {stage for stage in before if before[stage] != after[stage]}


def claims(folder: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS, json.dumps(CLAIMS)],
        env={"PYTHONPATH": str(folder / "src")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_kedro_run_repeats_only_what_reaches_an_edited_module(copy):
    before = claims(copy)
    for path, text, wanted in (
        (REPORT, "\nEDITED = 1\n", set()),
        (MASKING, "\n# a comment\n", set()),
        (MASKING, "\nEDITED = 1\n", {"pretraining"}),
        ("src/fourfold/tokenizers/training/tokenizer_set.py", "\nEDITED = 1\n", {"tokenizer_training"}),
        ("src/fourfold/transfer/finetuning.py", "\nEDITED = 1\n", {"finetuning"}),
        ("src/fourfold/storage.py", "\nEDITED = 1\n", set(CLAIMS)),
    ):
        restore = edit(copy, path, text)
        assert changed_claims(copy, before) == wanted, (path, text)
        restore()


def test_dvc_repro_repeats_only_what_reaches_an_edited_package(copy, monkeypatch):
    from fourfold_ops.versioning.repository import commit_stages, status

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.chdir(copy)
    commit_stages(copy, list(STAGES))
    assert status(copy) == {}
    # fine-tuning and evaluation load the model, whose generation code reaches the masking
    for path, wanted in ((REPORT, {"evaluation"}), (MASKING, {"pretraining", "finetuning", "evaluation"})):
        restore = edit(copy, path, "\nEDITED = 1\n")
        assert set(status(copy)) == wanted
        restore()
    # a superseded result inside of an output is no part of that output
    aside = copy / "data/02_labels/.superseded/teachers-0a1b2c3d"
    aside.mkdir(parents=True)
    (aside / "old").write_text("x")
    assert status(copy) == {}
