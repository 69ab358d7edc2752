"""Labelers of kind `torchvision` give what the library's models and presets give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from fourfold.labelers import LabelingConfig
from fourfold.labelers.torchvision_models import (
    TorchvisionBoxes,
    TorchvisionBoxesConfig,
    TorchvisionSegmentation,
    TorchvisionSegmentationConfig,
)

IMAGES_BHW3 = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)  # 48 × 64
PICTURES = [Image.fromarray(rgb_HW3) for rgb_HW3 in IMAGES_BHW3]
CLASSES = ("__background__", "person", "N/A", "dog")


def saved(path: Path, name: str, number: int) -> tuple[torch.nn.Module, str]:
    from torchvision.models import get_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_model(name, weights=None, weights_backbone=None, num_classes=number).eval()
    save_file(model.state_dict(), path)
    return model, str(path)


def test_boxes_equal_those_of_the_library(tmp_path: Path) -> None:
    from torchvision.transforms.functional import pil_to_tensor

    model, weights = saved(tmp_path / "w.safetensors", "ssdlite320_mobilenet_v3_large", len(CLASSES))
    config = TorchvisionBoxesConfig(model="ssdlite320_mobilenet_v3_large", weights=weights, classes=CLASSES, threshold=0.0)
    found = TorchvisionBoxes(config).label({"rgb": IMAGES_BHW3})
    with torch.inference_mode():
        expected = model([pil_to_tensor(picture).float() / 255 for picture in PICTURES])
    for ours, theirs in zip(found, expected, strict=True):
        kept = [i for i in range(len(theirs["labels"])) if theirs["labels"][i] != 2]  # a placeholder of an id without a class
        instances = ours["instances"]
        assert 0 < len(instances) == min(len(kept), 100)
        np.testing.assert_allclose([one["score"] for one in instances], theirs["scores"][kept][:100], atol=1e-5)
        assert [one["class_name"] for one in instances] == [CLASSES[i] for i in theirs["labels"][kept][:100]]
        boxes = theirs["boxes"][kept][:100] / torch.tensor([64, 48, 64, 48])
        np.testing.assert_allclose([one["box"] for one in instances], boxes.clamp(0, 1), atol=1e-5)
    assert TorchvisionBoxes.class_table(config).thing_names == ("person", "dog")


def test_segmentation_equals_that_of_the_library(tmp_path: Path) -> None:
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights
    from torchvision.transforms.functional import pil_to_tensor

    model, weights = saved(tmp_path / "w.safetensors", "lraspp_mobilenet_v3_large", 21)
    config = TorchvisionSegmentationConfig(model="lraspp_mobilenet_v3_large", weights=weights, side=96)
    labeler = TorchvisionSegmentation(config)
    found = labeler.label({"rgb": IMAGES_BHW3})
    preset = LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms(resize_size=96)
    for rated, picture, rgb_HW3 in zip(found, PICTURES, IMAGES_BHW3, strict=True):
        with torch.inference_mode():
            logits = F.interpolate(model(preset(pil_to_tensor(picture))[None])["out"], (48, 64), mode="bilinear")
            ours = labeler.predict(torch.from_numpy(rgb_HW3).permute(2, 0, 1)[None])
        np.testing.assert_allclose(ours, logits, atol=1e-5)
        np.testing.assert_array_equal(rated.value, logits[0].argmax(0).numpy())
        assert rated.confidence == pytest.approx(float(logits[0].softmax(0).max(0).values.mean()), abs=1e-4)
    names = labeler.class_table(config).names
    assert names[0] == "background" and {"airplane", "couch", "tv"} <= set(names)


def test_weights_and_models_are_checked(tmp_path: Path) -> None:
    def opened(**settings: Any) -> TorchvisionBoxes:
        return TorchvisionBoxes(TorchvisionBoxesConfig.model_validate(settings))

    with pytest.raises(ValueError, match="torchvision has no model 'resnet51'"):
        opened(model="resnet51", weights="x")
    with pytest.raises(ValueError, match=r"weights is 'x\.pth'; it must be an existing file \.safetensors"):
        opened(model="ssdlite320_mobilenet_v3_large", weights="x.pth")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    labeler = opened(model="ssdlite320_mobilenet_v3_large", weights=str(tmp_path / "other.safetensors"), classes=CLASSES)
    with pytest.raises(ValueError, match=r"does not fit 'ssdlite320_mobilenet_v3_large' with 4 classes"):
        _ = labeler.model
    assert labeler.origin()["software"].startswith("torchvision 0.")


def test_names_come_from_the_library() -> None:
    section = {"kind": "torchvision", "model": "fasterrcnn_resnet50_fpn_v2", "weights": "x.safetensors"}
    config = LabelingConfig.model_validate({"labelers": {"det": section}})
    assert "traffic light" in config.class_tables()["det"].thing_names
    assert "N/A" not in config.class_tables()["det"].names
