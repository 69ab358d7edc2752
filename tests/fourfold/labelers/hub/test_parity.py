"""Each adapter gives what the library's own pipeline gives, on checkpoints with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from PIL import Image

from fourfold.labelers.depths import meters_of_inverse
from fourfold.labelers.hub.boxes import BoxesConfig, TransformersBoxes
from fourfold.labelers.hub.depth import DepthConfig, TransformersDepth
from fourfold.labelers.hub.features import ClipPatches, ClipVector, DinoPatches, DinoVector, FeaturesConfig
from fourfold.labelers.hub.segmentation import SegmentationConfig, TransformersSegmentation
from tests.support import tiny_checkpoints as tiny

TOLERANCE = 1e-5
IMAGES_BHW3 = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)  # 48 × 80
PICTURES = [Image.fromarray(rgb_HW3) for rgb_HW3 in IMAGES_BHW3]


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny.save(tmp_path, request.param, seed=int(request.param is tiny.mask2former))  # seed 0 gives it one class alone


def each(builders: dict[str, Callable[[], Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("checkpoint", builders.values(), ids=builders, indirect=True)


@each(tiny.DEPTH)
def test_depth(checkpoint: Path) -> None:
    # ZoeDepth's bins amplify the rounding that depends on the size of a batch
    batch_size = 1 if "zoedepth" in (checkpoint / "config.json").read_text() else 2
    labeler = TransformersDepth(DepthConfig(model=str(checkpoint), batch_size=batch_size))
    expected = [one["predicted_depth"].numpy() for one in hf.pipeline("depth-estimation", str(checkpoint))(PICTURES)]
    found = labeler.predict(IMAGES_BHW3)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == IMAGES_BHW3.shape[1:3] and theirs.std() > 0.01
        np.testing.assert_allclose(ours, theirs.squeeze(), atol=TOLERANCE * max(1, theirs.max()))
    known = labeler.checkpoint.config
    is_metric = known.model_type in ("glpn", "zoedepth", "depth_pro") or getattr(known, "depth_estimation_type", "") == "metric"
    assert labeler.is_metric == is_metric
    for raw_HW, meters_HW in zip(found, labeler.label({"rgb": IMAGES_BHW3}), strict=True):
        wanted = raw_HW.clip(1e-3) if labeler.is_metric else meters_of_inverse(raw_HW, 1, 20)
        np.testing.assert_allclose(meters_HW, wanted, rtol=2e-3)  # 16 bits


@each(tiny.SEGMENTATION)
def test_segmentation(checkpoint: Path) -> None:
    config = SegmentationConfig(model=str(checkpoint), batch_size=2)
    labeler = TransformersSegmentation(config)
    rated = labeler.label({"rgb": IMAGES_BHW3})
    found = [one.value for one in rated]
    pipeline = hf.pipeline("image-segmentation", str(checkpoint))
    for ids_HW, picture in zip(found, PICTURES, strict=True):
        expected_HW = np.full(ids_HW.shape, 255)
        for segment in pipeline(picture, subtask="semantic"):
            expected_HW[np.asarray(segment["mask"]) > 0] = pipeline.model.config.label2id[segment["label"]]
        np.testing.assert_array_equal(ids_HW, expected_HW)
    assert len(np.unique(found)) > 1
    table = TransformersSegmentation.class_table(config)
    assert table.names == tuple(tiny.CLASSES.values())
    assert (table.thing_names, table.background) == (("person", "car", "dog"), (1,))
    # The confidence: the mean probability of the classes, from the outputs of the model itself
    inputs = labeler.processor(images=PICTURES[0], return_tensors="pt")
    with torch.inference_mode():
        outputs = labeler.model(**inputs)
    if labeler.has_masks:
        masks_NHW = outputs.masks_queries_logits[0].sigmoid()  # some families enlarge the logits first, hence the tolerance
        classes_NK = outputs.class_queries_logits[0].softmax(-1)[:, :-1]
        scores_KHW = F.interpolate(torch.einsum("nk,nhw->khw", classes_NK, masks_NHW)[None], (48, 80), mode="bilinear")[0]
        shares_KHW = scores_KHW / scores_KHW.sum(0)
    else:
        shares_KHW = F.interpolate(outputs.logits, (48, 80), mode="bilinear")[0].softmax(0)
    assert rated[0].confidence == pytest.approx(float(shares_KHW.max(0).values.mean()), abs=2e-2)
    assert 1 / len(tiny.CLASSES) < rated[0].confidence < 1


def test_one_former_reads_the_task_and_needs_no_file_of_another_repository(tmp_path: Path) -> None:
    """The reference is the library's processor; its pipeline pads the text of the task in another way and disagrees."""
    tiny.save(tmp_path, lambda: tiny.oneformer(tmp_path), seed=1)
    processor = hf.OneFormerProcessor.from_pretrained(tmp_path)
    model = hf.OneFormerForUniversalSegmentation.from_pretrained(tmp_path).eval()
    expected = []
    for picture in PICTURES:
        inputs = processor(picture, ["semantic"], return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        expected += processor.post_process_semantic_segmentation(outputs, target_sizes=[(48, 80)])
    (tmp_path / "class_info.json").unlink()  # as it is with published checkpoints
    rated = TransformersSegmentation(SegmentationConfig(model=str(tmp_path), batch_size=2)).label({"rgb": IMAGES_BHW3})
    found = [one.value for one in rated]
    for ids_HW, expected_HW in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ids_HW, expected_HW.numpy())
    assert len(np.unique(found)) > 1


def require_equal_boxes(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The pipeline rounds pixels down, so a box lies within a pixel."""
    expected = sorted(expected, key=lambda one: -one["score"])
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours["class_name"], ours["score"]) == (theirs["label"], pytest.approx(theirs["score"], abs=TOLERANCE))
        pixels = np.array(ours["box"]) * [80, 48, 80, 48]
        corners = np.array([theirs["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]).clip(0, [80, 48, 80, 48])
        assert (pixels > corners - 1e-3).all() and (pixels < corners + 1 + 1e-3).all()


@each(tiny.BOXES)
def test_boxes(checkpoint: Path) -> None:
    config = BoxesConfig(model=str(checkpoint), batch_size=2, threshold=0.05)
    found = TransformersBoxes(config).label({"rgb": IMAGES_BHW3})
    expected = hf.pipeline("object-detection", str(checkpoint))(PICTURES, threshold=0.05)
    assert sum(len(one["instances"]) for one in found) > 3
    for ours, theirs in zip(found, expected, strict=True):
        require_equal_boxes(ours["instances"], theirs)
    assert TransformersBoxes.class_table(config).thing_names == tuple(tiny.CLASSES.values())


def test_boxes_by_words(tmp_path: Path) -> None:
    tiny.save(tmp_path, lambda: tiny.grounding_dino(tmp_path))
    classes = ("person", "car")
    config = BoxesConfig(model=str(tmp_path), classes=classes, threshold=0.1, text_threshold=0.5)
    found = TransformersBoxes(config).label({"rgb": IMAGES_BHW3})
    processor, model = hf.AutoProcessor.from_pretrained(tmp_path), hf.GroundingDinoForObjectDetection.from_pretrained(tmp_path)
    total = 0
    for ours, picture in zip(found, PICTURES, strict=True):
        inputs = processor(images=picture, text=[list(classes)], return_tensors="pt")
        with torch.inference_mode():
            outputs = model.eval()(**inputs)
        (theirs,) = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.1, text_threshold=0.5, target_sizes=[(48, 80)]
        )
        named = zip(theirs["text_labels"], theirs["scores"].tolist(), theirs["boxes"].tolist(), strict=True)
        sides = ("xmin", "ymin", "xmax", "ymax")
        expected = [
            {"label": named_classes[0], "score": score, "box": {side: int(x) for side, x in zip(sides, box, strict=True)}}
            for words, score, box in named
            if len(named_classes := [name for name in classes if name in words]) == 1  # the others name no class
        ]
        total += len(expected)
        require_equal_boxes(ours["instances"], expected)
    assert total


@each(tiny.FEATURES)
def test_patch_features_and_vectors(checkpoint: Path) -> None:
    labeler = DinoPatches(FeaturesConfig(model=str(checkpoint), batch_size=2))
    features_BhwC, vectors_BD = labeler.encode(IMAGES_BHW3)
    processor, model = hf.AutoImageProcessor.from_pretrained(checkpoint), hf.AutoModel.from_pretrained(checkpoint).eval()
    for index, picture in enumerate(PICTURES):
        with torch.inference_mode():
            outputs = getattr(model, "vision_model", model)(**processor(images=picture, return_tensors="pt"))
        h, w = features_BhwC.shape[1:3]
        tokens_LC = outputs.last_hidden_state[0]
        if "siglip2" not in labeler.checkpoint.config.model_type:  # whose tokens are padded at the end
            tokens_LC = tokens_LC[-h * w :]
        np.testing.assert_allclose(features_BhwC[index].reshape(h * w, -1), tokens_LC[: h * w], atol=TOLERANCE)
        vector_D = torch.nn.functional.normalize(outputs.pooler_output[0], dim=-1)
        np.testing.assert_allclose(vectors_BD[index], vector_D, atol=TOLERANCE)
    stored = DinoVector(FeaturesConfig(model=str(checkpoint))).label({"rgb": IMAGES_BHW3[:1]})
    np.testing.assert_allclose(stored[0], vectors_BD[0], atol=1e-3)
    resized = DinoPatches(FeaturesConfig(model=str(checkpoint), grid=(2, 2), channels=5)).label({"rgb": IMAGES_BHW3[:1]})
    assert resized[0].shape == (2, 2, 5)


def test_clip_patches_vectors_and_texts(tmp_path: Path) -> None:
    tiny.save(tmp_path, lambda: tiny.clip(tmp_path))
    labeler = ClipPatches(FeaturesConfig(model=str(tmp_path), batch_size=2))
    processor, model = hf.CLIPProcessor.from_pretrained(tmp_path), hf.CLIPModel.from_pretrained(tmp_path).eval()
    features_BhwC, vectors_BC = labeler.encode_image(IMAGES_BHW3)
    texts = ["a dog", "a", "dog dog"]
    with torch.inference_mode():
        pixels = processor(images=PICTURES, return_tensors="pt")
        outputs = model(**pixels, **processor(text=texts, return_tensors="pt", padding=True))
        last_BLC = model.vision_model.post_layernorm(model.vision_model(**pixels).last_hidden_state)
        tokens_BLC = model.visual_projection(last_BLC)
    assert features_BhwC.shape == (3, 3, 3, 8)
    np.testing.assert_allclose(features_BhwC.reshape(3, 9, 8), tokens_BLC[:, 1:], atol=TOLERANCE)
    np.testing.assert_allclose(vectors_BC, outputs.image_embeds, atol=TOLERANCE)
    np.testing.assert_allclose(labeler.encode_text(texts), outputs.text_embeds, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(labeler.pool(features_BhwC), axis=-1), 1, atol=1e-5)
    stored = ClipVector(FeaturesConfig(model=str(tmp_path))).label({"rgb": IMAGES_BHW3})
    np.testing.assert_allclose(stored, vectors_BC, atol=1e-3)
