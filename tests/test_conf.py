"""Requirements of dvc.yaml on conf/, and of the set-up."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
ENVIRONMENTS = sorted(
    path.parent.name for path in (ROOT / "conf").glob("*/parameters.yml") if path.parent.name not in ("base", "local")
)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environment_names_every_stage_and_no_shared_section(environment):
    content = yaml.safe_load((ROOT / "conf" / environment / "parameters.yml").read_text())
    content.pop("specialists", None)  # of a pipeline that is no part of dvc.yaml
    content.pop("plugins", None)  # DVC watches the code that it lists, and a run the modules of the plug-ins
    assert set(content) == set(STAGES), "dvc.yaml reads each section of each environment: write `{}` where nothing differs"


def test_parameters_are_literal_values():
    for path in (ROOT / "conf").glob("*/parameters.yml"):
        assert "${" not in path.read_text(), f"{path.relative_to(ROOT)} interpolates"


def test_dvc_has_each_pipeline_in_order_with_persistent_outputs():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        assert f"--pipelines={name} " in stage["cmd"]
        assert all(next(iter(out.values())) == {"persist": True} for out in stage["outs"])


def test_dvc_finds_kedro_without_an_activated_environment(tmp_path):
    program = tmp_path / ".venv/bin/kedro"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        command = stage["cmd"].replace("${flags}", "--env=smoke ")
        done = subprocess.run(command, shell=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert done.stdout == f"run --env=smoke --pipelines={name}\n", done.stderr


def test_dvc_lists_everything_that_a_stage_reads_and_writes():
    """Otherwise `dvc repro` would skip a stage whose data changed, or leave a file out of the cache."""
    from pipelines.pipeline_registry import register_pipelines

    catalog = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, pipeline in register_pipelines().items():
        if name not in stages:  # __default__, and benchmarks, which DVC does not track
            continue
        made = [next(iter(out)) for out in stages[name]["outs"]]
        for entry in pipeline.datasets():
            place = catalog.get(entry, {}).get("path") or catalog.get(entry, {}).get("filepath")
            if place is None:  # parameters, the metric log, the registry
                continue
            known = made if entry in pipeline.all_outputs() else [*made, *stages[name]["deps"]]
            assert any(Path(place).is_relative_to(folder) for folder in known), f"{name}: {entry} lies in {place}"


def test_requirements_lock_has_hashes_and_no_index():
    text = (ROOT / "requirements.lock").read_text()
    pins = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(pins) > 100 and text.count("--hash=sha256:") >= len(pins)
    assert not any(word in text for word in ("--index", "--extra-index", "--find-links", "http://", "https://"))


GATES = sorted(path.parent.name for path in (ROOT / "conf").glob("*/promotion.yml"))


@pytest.mark.parametrize("environment", GATES)
def test_gate_names_metrics_of_evaluation_in_their_direction(environment):
    from fourfold.evaluation.tasks import PREDICTION_TASKS
    from fourfold.metrics.metric import find_metric
    from fourfold.plugins import load_plugins
    from fourfold_ops.registry.gate import read_gate

    load_plugins(["fourfold.scenes", *(["fourfold.medical"] if environment == "medical" else [])])
    values = [yaml.safe_load((ROOT / f"conf/{name}/promotion.yml").read_text()) for name in ("base", environment)]
    for name, rule in read_gate(values[0] | values[1]).metrics.items():
        pair, _, key = name.rpartition("/")
        known = [metric for _, task in PREDICTION_TASKS.items() if task.pair == pair for metric in task.metrics]
        assert any(metric.describes(key) for metric in known), name
        assert find_metric(known, key).lower_is_better == (rule.direction == "lower"), name


def test_gate_in_the_guide_is_valid():
    from fourfold_ops.registry.gate import read_gate

    text = (ROOT / "docs/guides/promote.md").read_text(encoding="utf-8")
    gate = read_gate(yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0]))
    assert gate.metrics["rgb->semseg/miou"].min_gain == 0.005
