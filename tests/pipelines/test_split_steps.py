"""Steps that several pods can share: ingestion, labeling, tokenizing."""

import json

from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline

from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.metric_log import NullMetricLog
from fourfold.plugins import load_plugins
from fourfold_ops import handover
from fourfold_ops.datasets import PlaceDataset, WorkSplitDataset
from fourfold_ops.kubernetes.in_pod.step_runner import StepRunner
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings
from fourfold_ops.kubernetes.plan.steps import plan_steps
from pipelines.ingestion.pipeline import create_pipeline as ingestion
from pipelines.pseudo_labeling.pipeline import create_pipeline as pseudo_labeling
from pipelines.tokenizer_training.pipeline import create_pipeline as tokenizer_training

SPLIT = ("ingest_images", "label_images", "tokenize_shards")
SIZES = {"annotated": 4, "train": 12, "val": 4, "test": 4}


def test_the_steps_that_can_be_split_get_their_share_from_the_catalog():
    pipeline = ingestion() + pseudo_labeling() + tokenizer_training()
    assert {node.name for node in pipeline.nodes if "work_split" in node.inputs} == set(SPLIT)
    image = f"registry/image@sha256:{'0' * 64}"
    settings = KubernetesSettings(image=image, nodes={name: {"shards": 3} for name in SPLIT})
    steps = {step.name: step for step in plan_steps(pipeline, settings, lambda node: "stage")}
    assert all(steps[name].remote and steps[name].resources.shards == 3 for name in SPLIT)


def test_pods_that_share_ingestion_save_nothing_and_the_last_one_finds_all_cleaned(tmp_path, monkeypatch):
    """The pods of an Indexed Job, one after another, then the one that merges."""
    load_plugins(["fourfold.scenes"])
    settings = {"source": {"kind": "scenes", "image_size": 16, "num_samples": SIZES, "images_per_shard": 4}}
    config = IngestionConfig.model_validate({**settings, "image_size": 16, "cleaning": {"min_side": 16}})

    def run(pipeline: Pipeline) -> DataCatalog:
        inputs = {"params:ingestion": config, "params:seed": 0, "raw_folder": tmp_path, "metric_log": NullMetricLog()}
        catalog = DataCatalog({name: MemoryDataset(value, copy_mode="assign") for name, value in inputs.items()})
        catalog["work_split"], catalog["shards_at"] = WorkSplitDataset(), PlaceDataset()
        StepRunner().run(pipeline, catalog)
        return catalog

    for index in ("1", "0"):
        with monkeypatch.context() as pod:
            pod.setenv(handover.PART_COUNT, "2")
            pod.setenv(handover.PART_INDEX, index)
            run(ingestion())
        assert not list(tmp_path.rglob("manifest.json")) and not list(tmp_path.glob("*.json"))
    assert len(list(tmp_path.rglob("chunk-*.json"))) == 6  # archives of four images
    run(ingestion())
    report = json.loads((tmp_path / "ingestion_report.json").read_text())
    assert sum(report["kept"].values()) == sum(SIZES.values()) and not list(tmp_path.glob(".partial-*"))
