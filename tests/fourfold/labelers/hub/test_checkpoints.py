"""What is not a usable checkpoint is one clear error, before any image is labeled; what is used is recorded."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LabelingConfig, TeacherSet, extras, integrate_labels, label_shards, train_teachers
from fourfold.labelers.card import label_card
from fourfold.labelers.hub import checkpoints
from fourfold.labelers.hub.checkpoints import HubConfig, open_checkpoint
from fourfold.labelers.hub.depth import DepthConfig, TransformersDepth
from fourfold.metric_log import NullMetricLog
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.training.tokenizer_set import _with_classes
from tests.support import tiny_checkpoints as tiny


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("segformer"), tiny.segformer)


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("yolos"), tiny.yolos)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("dpt"), tiny.dpt)


@pytest.fixture
def images(tmp_path: Path) -> ShardSet:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    keys = [f"photo-{number}" for number in range(5)]
    columns = {"rgb": list(zip(keys, pictures, strict=True)), "caption": [(key, "a photo") for key in keys]}
    write_columns(tmp_path / "images", "train", "shard-00000.tar", columns)
    finish_split(tmp_path / "images", "train", ["rgb", "caption"])
    return ShardSet(tmp_path / "images")


def test_three_teachers_label_shards_and_are_recorded(
    images: ShardSet, segformer: Path, yolos: Path, dpt: Path, tmp_path: Path
) -> None:
    (segformer / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Card\n")
    config = LabelingConfig.model_validate(
        {
            "labelers": {
                "semseg": {"kind": "transformers", "model": str(segformer)},
                "det": {"kind": "transformers", "model": str(yolos), "threshold": 0.0, "license": "apache-2.0"},
                "depth": {"kind": "transformers", "model": str(dpt), "near": 0.5, "far": 4},
                "normal": "normals_from_depth",
                "clip": None,
            },
            "integration": {"min_class_overlap": 0, "min_score": 0},
        }
    )
    assert config.labelers["semseg"] == "transformers_semseg" and "clip" not in config.labelers
    teachers = train_teachers(images, images, config, 0, tmp_path / "teachers", NullMetricLog())
    raw = label_shards(images, TeacherSet.load(tmp_path / "teachers"), config, tmp_path / "raw")
    labels, _ = integrate_labels(raw, images, config, tmp_path / "labels")
    # 1) Every modality is there, in its stored format
    assert labels.modalities("train") == ["depth", "det", "normal", "semseg"]
    depth = labels.load_column("train", "depth")
    assert depth.min() == pytest.approx(0.5, rel=1e-3) and depth.max() == pytest.approx(4, rel=1e-3)
    # 2) Where it comes from is in the manifests
    origins = {name: labels.manifest("train", name).origin for name in labels.modalities("train")}
    assert origins["normal"] is None
    assert origins["semseg"]["license"] == "mit" and origins["det"]["license"] == "apache-2.0"
    assert origins["depth"]["model"] == str(dpt) and origins["depth"]["scale"].startswith("relative")
    assert all(len(origins[name]["sha256"]) == 64 for name in ("semseg", "det", "depth"))
    card = label_card(labels, config)
    for line in (
        "License of the weights: mit",
        "| train | 5 |",
        "- Scale: relative",
        "for: clip.",
        "Classes: wall, sky, person",
    ):
        assert line in card, card
    # 3) Classes of the tokenizers follow: of segments those of one checkpoint, of boxes those of the other
    settings = _with_classes(TokenizersConfig(), labels)
    assert settings.num_classes == len(tiny.CLASSES)
    assert settings.text.class_names == tuple(tiny.CLASSES.values())
    assert teachers.digest() == TeacherSet.load(tmp_path / "teachers").digest()


def test_other_weights_are_another_teacher(tmp_path: Path, images: ShardSet) -> None:
    folder = tiny.save(tmp_path / "model", tiny.segformer)
    config = LabelingConfig.model_validate({"labelers": {"semseg": {"kind": "transformers", "model": str(folder)}}})
    before = train_teachers(images, images, config, 0, tmp_path / "teachers", NullMetricLog()).digest()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    checkpoints._opened.cache_clear()
    assert TeacherSet.load(tmp_path / "teachers").digest() != before


def test_pickled_weights_are_refused(segformer: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((segformer / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"no weights as safetensors \(only pytorch_model.bin\)"):
        open_checkpoint(HubConfig(model=str(tmp_path)))


def test_code_of_a_checkpoint_is_refused(segformer: Path, tmp_path: Path) -> None:
    code = {"model_type": "theirs", "auto_map": {"AutoModel": "theirs.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "theirs.py").write_text("raise SystemExit('their code ran')")
    (tmp_path / "model.safetensors").write_bytes((segformer / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"'theirs', which transformers .* brings its own code, which is not run"):
        open_checkpoint(HubConfig(model=str(tmp_path)))


def test_a_folder_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="'/no/such/folder': there is no such folder"):
        TransformersDepth.require(DepthConfig(model="/no/such/folder"))
    TransformersDepth.require(DepthConfig(model="owner/name"))
    with pytest.raises(ValueError, match="'/no/such/folder': there is no such folder"):
        open_checkpoint(HubConfig(model="/no/such/folder"))


def test_a_model_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"'owner/name' is not a folder, and cannot be fetched from the hub: no connection\."):
        open_checkpoint(HubConfig(model="owner/name"))


def test_a_model_of_another_task_is_named(dpt: Path, segformer: Path) -> None:
    labeler = TransformersDepth(DepthConfig(model=str(segformer)))
    with pytest.raises(ValueError, match="cannot be loaded as AutoModelForDepthEstimation"):
        _ = labeler.model


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'fourfold\[hub\]'"):
        open_checkpoint(HubConfig(model="owner/other"))


def test_a_kind_is_checked_when_the_configuration_is_read() -> None:
    with pytest.raises(ValueError, match="Did you mean 'transformers'"):
        LabelingConfig.model_validate({"labelers": {"depth": {"kind": "transformer", "model": "x"}}})
    with pytest.raises(ValueError, match=r"labelers\.depth is a section without `kind`"):
        LabelingConfig.model_validate({"labelers": {"depth": {"model": "x"}}})
    with pytest.raises(ValueError, match=r"transformers_depth\.folder: Extra inputs are not permitted"):
        LabelingConfig.model_validate({"labelers": {"depth": {"kind": "transformers", "folder": "x", "model": "x"}}})
    with pytest.raises(ValueError, match="'transformers_depth' needs settings: model"):
        LabelingConfig.model_validate({"labelers": {"depth": "transformers_depth"}})
    with pytest.raises(ValueError, match="'transformers' does not produce 'canny_edge'"):
        LabelingConfig.model_validate({"labelers": {"canny_edge": {"kind": "transformers", "model": "x"}}})
