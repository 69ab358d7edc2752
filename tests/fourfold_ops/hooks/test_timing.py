import logging

from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from fourfold_ops.datasets import StageSecondsDataset
from fourfold_ops.hooks import timing


def test_seconds_are_logged_of_the_stages_of_this_run_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(timing, "stage_of", lambda node: node.name)
    table = StageSecondsDataset(str(tmp_path / "seconds.json"))
    table.record("training", "train", 100.0)
    hook = timing.TimingHook()
    hook.after_catalog_created(DataCatalog({"seconds": table}))
    node = Node(len, "x", "y", name="evaluation")
    with caplog.at_level(logging.INFO):
        hook.after_node_run(node)
        hook.after_pipeline_run(Pipeline([node]))
    assert "Seconds by stage: evaluation 0" in caplog.messages
    assert set(table.load()) == {"training", "evaluation"}
