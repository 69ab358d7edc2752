"""Photographs through the nodes of all six stages, without a rendered scene, exact truth or a second source."""

import hashlib
import sys
from pathlib import Path

import pytest
import yaml

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.geometry.edges import CannyEdges
from fourfold.metric_log import NullMetricLog
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from pipelines.evaluation import nodes as evaluation
from pipelines.finetuning.nodes import compare_arms
from pipelines.ingestion.nodes import ingest_images
from pipelines.parameters import Parameters
from pipelines.pretraining.nodes import assemble_model, pretrain_model
from pipelines.pseudo_labeling import nodes as labeling
from pipelines.tokenizer_training import nodes as tokenizing

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from photographs import PICTURES, write_photographs
from tiny import VQVAE
from tiny_networks import write_networks

LOG, SEED = NullMetricLog(), 0
SMALL: dict = {
    "num_threads": 1,
    "ingestion": {"val_share": 0.25, "test_share": 0.25, "samples_per_shard": 16, "image_size": 32},
    "pseudo_labeling": {"teachers": {"mini_clip": {"fit": {"steps": 2, "batch_size": 8}}}},
    "tokenizer_training": {
        "grid": [4, 4],
        "visual": dict.fromkeys(("rgb", "semseg", "clip", "canny_edge"), VQVAE | {"batch_size": 8}),
    },
    "pretraining": {
        "model": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2},
        "batch_size": 8,
        "total_tokens": 2304,
        "warmup_tokens": 576,
        "validation_samples": 8,
        "loop": {"log_every": 1, "validate_every": 2, "checkpoint_every": 2},
    },
    "finetuning": {
        "num_seeds": 1,
        "steps": 1,
        "num_selection": 10,
        "num_test": 10,
        "lr_multipliers": {arm: [1.0] for arm in ("pretrained", "scratch", "baseline")},
    },
    "evaluation": {"replicates": 10, "gallery_samples": 2, "recall_k": 3},
}


def merged(base: dict, other: dict) -> dict:
    """Values of `other` over those of `base`, as Kedro merges environments."""
    both = {k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in other.items()}
    return {**base, **both}


@pytest.fixture(scope="module", autouse=True)
def networks(tmp_path_factory):
    """Stand-ins for what `make teachers` fetches."""
    folder = str(write_networks(tmp_path_factory.mktemp("networks")))
    sections = {name: {"folder": folder} for name in ("semseg", "det", "clip", "keypoints")}
    sections["clip"]["grid"] = [4, 4]
    SMALL["pseudo_labeling"]["labelers"] = sections


def parameters(source: dict, changes: dict) -> Parameters:
    values: dict = {}
    for environment in ("base", "photos"):
        path = Path(__file__).parents[2] / "conf" / environment / "parameters.yml"
        values = merged(values, yaml.safe_load(path.read_text()))
    values["ingestion"]["source"] = source
    return Parameters.model_validate(merged(merged(values, SMALL), changes))


def run(settings: Parameters, out: Path) -> tuple[dict, dict, str, dict]:
    """Return metrics, transfer results, the report and the ingestion report."""
    shards, truth, ingested, _, _ = ingest_images(settings.ingestion, SEED, out / "raw", LOG, (0, 1))
    teachers = labeling.train_labelers(shards, truth, settings.pseudo_labeling, SEED, out / "teachers", LOG)
    raw = labeling.label_images(shards, teachers, settings.pseudo_labeling, out / "raw_labels", (0, 1))
    labels, label_report = labeling.combine_labels(raw, shards, settings.pseudo_labeling, out / "labels")
    assert labeling.draw_labels(shards, labels).startswith(b"\x89PNG")
    teacher_metrics, teacher_history = labeling.measure_labelers(teachers, labels, shards, truth)
    made_by = (shards, labels, teachers, settings.pseudo_labeling)
    tokenizing.train_all_tokenizers(*made_by, settings.tokenizer_training, SEED, out / "tokenizers", LOG)
    tokenizers = TokenizerSet.load(out / "tokenizers")
    tokenizer_metrics, tokenizer_history = tokenizing.measure_all_tokenizers(tokenizers, shards, labels, out / "tokenizers")
    tokens = tokenizing.tokenize_shards(*made_by, tokenizers, settings.tokenizer_training, SEED, out / "tokens", (0, 1))
    folder, trained, history = pretrain_model(tokens, shards, tokenizers, settings.pretraining, SEED, out / "pretraining", LOG)
    model = AnyToAny.load(assemble_model(folder, tokenizers, out / "any_to_any"))
    transfer = compare_arms(model, shards, truth, settings.finetuning, SEED, out / "finetuning", LOG)
    table, _, worst = evaluation.evaluate_model(model, teachers, shards, labels, truth, settings.evaluation, SEED)
    metrics = evaluation.gather_metrics(table, transfer, teacher_metrics, tokenizer_metrics, trained)
    sections, png = evaluation.draw_gallery(model, shards, labels, truth, settings.evaluation, SEED)
    assert png.startswith(b"\x89PNG") and ShardSet(out / "raw" / "truth").splits() == []
    page = evaluation.write_page(
        metrics,
        sections,
        worst,
        transfer,
        history,
        teacher_history,
        tokenizer_history,
        ingested,
        label_report,
        settings.evaluation,
    )
    return metrics, transfer, page, ingested


def fail_on_some(monkeypatch) -> None:
    """Let the labeler of edges fail on every sixth image, by a hash of its key."""
    label = CannyEdges.label

    def sometimes(self, batch, output=None):
        if any(hashlib.sha256(key.encode()).digest()[0] % 6 == 0 for key in batch["__key__"]):
            raise RuntimeError("this image has no edges")
        return label(self, batch, output)

    monkeypatch.setattr(CannyEdges, "label", sometimes)


def test_captioned_photographs_go_through_all_stages(tmp_path, monkeypatch):
    fail_on_some(monkeypatch)
    write_photographs(tmp_path / "in", 60, 32, captioned=0.8)
    source = {"kind": "folder", "path": str(tmp_path / "in"), "class_folders": True}
    changes = {"pseudo_labeling": {"max_missing_share": 0.5}}
    metrics, transfer, page, ingested = run(parameters(source, changes), tmp_path / "out")
    # 1) Images without a caption are kept
    assert sum(ingested["kept"].values()) == 60 and ingested["by_source"]["source"]["captions_dropped"]["no caption"] > 5
    # 2) What is measured against what, beside the controls
    table = metrics["out_of_the_box"]
    of_labels = {f"rgb->{name}" for name in ("semseg", "det", "clip", "canny_edge", "color_palette", "keypoints")}
    assert {"rgb->caption", "caption->rgb"} | of_labels == set(table)
    assert set(metrics["references"]) == set(table)
    rows = [entry for entries in table.values() for entry in entries.values()]
    assert all(entry["shuffled"] is not None and entry["trivial"] is not None for entry in rows)
    assert table["rgb->canny_edge"]["f1"]["teacher"] is None  # its labels are the reference
    assert metrics["references"]["rgb->canny_edge"] == "labels: Canny edges"
    # 3) Annotations of the source make tasks; what is missing is named with the reason
    assert {name.partition("_")[0] for name in metrics["transfer"]} == {"classification"}
    assert set(transfer["skipped"]) == {"questions", "second_captions"}
    for text in ("measured against the captions of the source", "left out: depth, normal", "questions is skipped"):
        assert text in page
    # 4) Samples that lack a label stay in all splits; what is evaluated lacks none
    assert metrics["samples"] + metrics["samples_without_a_label"] == ingested["kept"]["test"]
    assert "missing: RuntimeError: this image has no edges" in page and "lack a label)" in page


def test_images_alone_go_through_all_stages(tmp_path):
    write_photographs(tmp_path / "in", 48, 32, captioned=0.0)
    changes = {"pseudo_labeling": {"labelers": {"clip": None}}, "evaluation": {"text_encoder": None}}
    metrics, transfer, page, _ = run(parameters({"kind": "folder", "path": str(tmp_path / "in")}, changes), tmp_path / "out")
    kept = ("semseg", "det", "canny_edge", "color_palette", "keypoints")
    assert set(metrics["out_of_the_box"]) == {f"rgb->{name}" for name in kept}
    assert metrics["skipped"]["rgb->caption"] == "it requires captions" and not metrics["transfer"]
    assert not any(name.endswith("/caption") for name in metrics["pretraining"])  # never a target
    assert len(transfer["skipped"]) == 3 and "depth, normal, clip" in page


def test_mini_clip_without_a_caption_says_how_to_leave_it_out(tmp_path):
    write_photographs(tmp_path / "in", 12, 32, captioned=0.0)
    mini_clip = {"pseudo_labeling": {"labelers": {"clip": "mini_clip"}}}
    settings = parameters({"kind": "folder", "path": str(tmp_path / "in")}, mini_clip)
    shards, truth, _, _, _ = ingest_images(settings.ingestion, SEED, tmp_path / "raw", LOG, (0, 1))
    with pytest.raises(ValueError, match=r"mini_clip learns from captions, and no image of .* has one. .*clip: null"):
        labeling.train_labelers(shards, truth, settings.pseudo_labeling, SEED, tmp_path / "teachers", LOG)


def test_every_picture_of_the_tests_is_there():
    assert all(path.is_file() for path in PICTURES.values())


def settings_of(environment: str) -> Parameters:
    values: dict = {}
    for name in ("base", environment):
        path = Path(__file__).parents[2] / "conf" / name / "parameters.yml"
        values = merged(values, yaml.safe_load(path.read_text()))
    return Parameters.model_validate(values)


def test_the_settings_of_conceptual_12m_are_those_of_the_paper():
    pretraining = settings_of("cc12m").pretraining
    model, masking = pretraining.model, pretraining.masking
    assert (model.dim, model.encoder_depth, model.decoder_depth, model.num_heads) == (768, 12, 12, 12)
    assert (masking.input_tokens, masking.target_tokens, pretraining.batch_size) == (128, 128, 8192)
    assert pretraining.num_steps == round(500e9 / 256 / 8192)
    assert pretraining.optimizer.learning_rate == 1e-4 * 8192 / 256


@pytest.mark.parametrize("environment", ["photos_hub", "cc12m"])
def test_the_teachers_of_the_hub_are_valid_settings(environment):
    labeling_config = settings_of(environment).pseudo_labeling
    captions = {"caption"} if environment == "photos_hub" else set()  # Conceptual 12M has captions
    assert set(labeling_config.labelers) == {"depth", "normal", "semseg", "det", "clip"} | captions
    assert labeling_config.labelers["normal"] == "normals_from_depth"
    for labeler in labeling_config.labeler_classes().values():
        labeler.require(labeling_config.settings_of(labeler))
