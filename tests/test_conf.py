"""Requirements of dvc.yaml on conf/, and of the set-up."""

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


def test_dvc_lists_everything_that_a_stage_reads_and_writes():
    """Otherwise `dvc repro` would skip a stage whose data changed, or leave a file out of the cache."""
    from pipelines.pipeline_registry import register_pipelines

    catalog = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    unversioned = {"stage_seconds"}  # times are not reproducible
    for name, pipeline in register_pipelines().items():
        if name == "__default__":
            continue
        made = [next(iter(out)) for out in stages[name]["outs"]]
        for entry in pipeline.datasets() - unversioned:
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
