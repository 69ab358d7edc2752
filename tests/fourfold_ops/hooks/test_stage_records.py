"""Records of stages: written when a stage is complete, from what was known when the run began."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from kedro.pipeline import Node, Pipeline

from fourfold_ops import handover
from fourfold_ops.hooks import stage_records
from fourfold_ops.hooks.stage_records import StageRecordsHook
from fourfold_ops.planning import contents
from fourfold_ops.planning.records import read_records

STAGE_OF = {"make": "making", "check": "making", "tune": "tuning"}
DVC_YAML = {
    "stages": {
        "making": {"params": [{"base.yml": ["seed", "making"]}], "deps": ["${source}"], "outs": ["data/01_made"]},
        "tuning": {"params": [{"base.yml": ["tuning"]}], "deps": ["data/01_made"], "outs": ["data/02_tuned"]},
    }
}
PARAMETERS = {"seed": 1, "making": {"size": 2}, "tuning": {}, "other": {}}
NODES = [
    Node(lambda: None, None, "made", name="make"),
    Node(lambda made: None, "made", "checked", name="check"),
    Node(lambda checked: None, "checked", "tuned", name="tune"),
]


class Project:
    """Answers from attributes that a test changes."""

    def __init__(self):
        self.modules, self.asked = {"a": "1"}, {}

    def claims(self, folder):
        return {}

    def stage_code(self, stages, catalog, parameters):
        self.asked = stages
        return {stage: dict(self.modules) for stage in stages}

    def outside(self, parameters):
        return {"source": "source.txt"}


@pytest.fixture
def hook(tmp_path, monkeypatch):
    project = Project()
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(DVC_YAML))
    (tmp_path / "source.txt").write_text("x")
    monkeypatch.setattr(stage_records, "stages", lambda: STAGE_OF)
    monkeypatch.setattr(stage_records, "stage_of", lambda node: STAGE_OF[node.name])
    monkeypatch.setattr(stage_records, "load_object", lambda path: project)
    hook = StageRecordsHook("project.PROJECT")
    loader = {"parameters": PARAMETERS, "catalog": {}}
    hook.after_context_created(SimpleNamespace(project_path=tmp_path, config_loader=loader))
    hook.project = project
    return hook


def run_node(hook: StageRecordsHook, root: Path, node: Node) -> None:
    """Call the hook as Kedro does around a node, which writes a file of its stage."""
    hook.before_dataset_loaded(node)
    hook.before_node_run(node)
    out = root / DVC_YAML["stages"][STAGE_OF[node.name]]["outs"][0]
    out.mkdir(parents=True, exist_ok=True)
    hook.after_node_run(node)
    (out / node.name).write_text(node.name)  # outputs are saved after that


def test_a_stage_is_recorded_when_the_next_one_begins(hook, tmp_path):
    hook.before_pipeline_run({}, Pipeline(NODES))
    assert hook.project.asked == {"making": {"made", "checked"}, "tuning": {"checked", "tuned"}}
    hook.project.modules = {"a": "edited meanwhile"}
    for node in NODES[:2]:
        run_node(hook, tmp_path, node)
        assert read_records(tmp_path / "data") == {}
    run_node(hook, tmp_path, NODES[2])
    (making,) = read_records(tmp_path / "data")["making"]
    assert list(read_records(tmp_path / "data")) == ["making"]
    assert making.parameters == {"seed": 1, "making": {"size": 2}} and making.code == {"a": "1"}
    assert making.outside == {"source": contents.outside_digest(tmp_path / "source.txt")}
    assert making.outputs == {"data/01_made": contents.digest(tmp_path / "data/01_made")} and making.outputs["data/01_made"]
    assert making.peak_bytes > 10_000_000 and making.ended_ns > 0
    hook.after_pipeline_run()
    (tuning,) = read_records(tmp_path / "data")["tuning"]
    assert tuning.inputs == making.outputs and tuning.outside == {}


@pytest.mark.parametrize(("run_params", "nodes"), [({"only_missing_outputs": True}, NODES), ({}, NODES[1:2])])
def test_partial_runs_are_not_recorded(hook, tmp_path, run_params, nodes):
    hook.before_pipeline_run(run_params, Pipeline(nodes))
    for node in nodes:
        run_node(hook, tmp_path, node)
    hook.after_pipeline_run()
    assert read_records(tmp_path / "data") == {}


def test_a_step_leaves_records_to_its_driver(hook, tmp_path, monkeypatch):
    monkeypatch.setenv(handover.STEP, "making")
    hook.before_pipeline_run({}, Pipeline(NODES))
    hook.after_pipeline_run()
    assert read_records(tmp_path / "data") == {}


def test_stages_that_ran_elsewhere_are_recorded_at_the_end(hook, tmp_path):
    hook.before_pipeline_run({}, Pipeline(NODES))
    for name in ("01_made", "02_tuned"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "result").write_text("x")
    hook.after_pipeline_run()
    records = read_records(tmp_path / "data")
    assert set(records) == {"making", "tuning"} and records["tuning"][0].seconds == 0
