"""Labelers of kind `onnx` on small networks whose outputs follow from arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fourfold.labelers import LABELERS, LabelingConfig
from fourfold.labelers.depths import meters_of_inverse
from fourfold.labelers.onnx_models.labelers import OnnxBoxes, OnnxClip, OnnxClipVector, OnnxDepth, OnnxSegmentation, at_image
from fourfold.labelers.onnx_models.sessions import InputConfig, placement, prepared

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)


def write_network(path: Path, nodes: list[Any], constants: dict[str, np.ndarray], outputs: list[str], shape: list[Any]) -> str:
    """Write a network with the input `images`; nodes are (operation, inputs, output, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(operation, inputs, [output], **attributes) for operation, inputs, output, attributes in nodes],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def labeler(kind: Callable[..., Any], path: str, **settings: Any) -> Any:
    return kind(kind.config_class.model_validate({"path": path, **settings}))


@pytest.fixture
def gray(tmp_path: Path) -> str:
    """The mean of the channels, (B, 1, H, W)."""
    nodes = [("ReduceMean", ["images"], "mean", {"axes": [1], "keepdims": 1})]
    return write_network(tmp_path / "gray.onnx", nodes, {}, ["mean"], ["batch", 3, "rows", "columns"])


def test_depth_metric_inverse_and_relative(gray: str) -> None:
    size = {"size": [8, 12], "mean": [-1.0, -1.0, -1.0]}  # gray values 1 to 2
    mean_BHW = IMAGES.astype(np.float32).mean(-1) / 255 + 1
    for output, expected_BHW in (
        ("metric", mean_BHW),
        ("inverse_meters", 1 / mean_BHW),
        ("inverse", np.stack([meters_of_inverse(one, 1.0, 20.0) for one in mean_BHW])),
    ):
        found = labeler(OnnxDepth, gray, input=size, output=output).label({"rgb": IMAGES})
        np.testing.assert_allclose(found, expected_BHW, rtol=1e-3)


def test_relative_depth_is_linear_in_inverse_meters_and_a_constant_lies_between() -> None:
    np.testing.assert_allclose(meters_of_inverse(np.array([[0.0, 5.0, 10.0]]), 1, 4), [[4, 1 / 0.625, 1]])
    np.testing.assert_allclose(meters_of_inverse(np.ones((2, 2)), 1, 4), 1 / 0.625)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_segmentation_by_logits(tmp_path: Path, resize: str) -> None:
    """Logits are the channels: the class is the color. Images of 16 × 32 pixels, a network of 16 × 16."""
    path = write_network(
        tmp_path / "color.onnx", [("Identity", ["images"], "logits", {})], {}, ["logits"], ["batch", 3, 16, 16]
    )
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16, 0], image[:, 16:, 2] = 200, 200
    settings = {"input": {"size": [16, 16], "resize": resize}, "classes": ["red", "person", "blue"], "batch_size": 2}
    one = labeler(OnnxSegmentation, path, **settings)
    for ids_HW in one.label({"rgb": np.stack([image, image])}):
        assert ids_HW.shape == (16, 32)
        assert (ids_HW[:, :15] == 0).all() and (ids_HW[:, 17:] == 2).all()
    table = one.class_table(one.config)
    assert (table.names, table.thing_names) == (("red", "person", "blue"), ("person",))


def test_segmentation_by_ids(tmp_path: Path) -> None:
    nodes = [("ArgMax", ["images"], "best", {"axis": 1, "keepdims": 0}), ("Cast", ["best"], "ids", {"to": TensorProto.FLOAT})]
    path = write_network(tmp_path / "ids.onnx", nodes, {}, ["ids"], ["batch", 3, 8, 12])
    found = labeler(OnnxSegmentation, path, input={"size": [8, 12]}, classes=["r", "g", "b"]).label({"rgb": IMAGES})
    np.testing.assert_array_equal(found, IMAGES.argmax(-1))


def constant_outputs(path: Path, outputs: dict[str, np.ndarray]) -> str:
    """Write a network with constant outputs that reads its input."""
    nodes: list[Any] = [("ReduceSum", ["images"], "sum", {"keepdims": 0}), ("Mul", ["sum", "zero"], "nothing", {})]
    nodes += [("Add", [f"{name}_values", "nothing"], name, {}) for name in outputs]
    constants = {f"{name}_values": array.astype(np.float32) for name, array in outputs.items()}
    return write_network(path, nodes, constants | {"zero": np.float32(0)[()].reshape(())}, list(outputs), [1, 3, 100, 100])


def boxes(found: list[dict[str, Any]]) -> list[tuple[str, list[float]]]:
    return [(one["class_name"], one["box"]) for one in found[0]["instances"]]


def test_boxes_as_corners(tmp_path: Path) -> None:
    outputs = {
        "corners": np.array([[[10, 20, 50, 60], [11, 20, 50, 60], [0, 0, 100, 100], [0, 0, 9, 9]]]),
        "scores": np.array([[0.9, 0.8, 0.7, 0.1]]),
        "ids": np.array([[1, 1, 0, 0]]),
    }
    path = constant_outputs(tmp_path / "corners.onnx", outputs)
    settings = {"input": {"size": [100, 100]}, "classes": ["car", "dog"]}
    expected = [("dog", [0.1, 0.2, 0.5, 0.6]), ("car", [0, 0, 1, 1])]  # the second is covered, the last too unlikely
    assert boxes(labeler(OnnxBoxes, path, **settings).label({"rgb": IMAGES[:1]})) == expected
    shuffled = labeler(OnnxBoxes, path, **settings, outputs=["corners", "scores", "ids"])
    assert boxes(shuffled.label({"rgb": IMAGES[:1]})) == expected
    assert shuffled.class_table(shuffled.config).thing_names == ("car", "dog")


@pytest.mark.parametrize("form", ["yolo", "yolo_objectness"])
def test_boxes_of_yolo_are_moved_out_of_the_padding(tmp_path: Path, form: str) -> None:
    """An image of 8 × 16 fills the middle half of the 100 × 100 input: rows 25 to 75."""
    centers, classes = np.array([[50.0, 50, 100, 50], [25, 37.5, 50, 25]]), np.array([[0.1, 0.9], [0.8, 0.2]])
    objectness = np.array([[0.5], [1.0]])
    rows = [centers, classes] if form == "yolo" else [centers, objectness, classes]
    table = np.concatenate(rows, 1)[None]
    path = constant_outputs(tmp_path / "yolo.onnx", {"out": table.transpose(0, 2, 1) if form == "yolo" else table})
    settings = {"input": {"size": [100, 100], "resize": "pad"}, "classes": ["car", "dog"], "format": form}
    found = labeler(OnnxBoxes, path, **settings).label({"rgb": np.zeros((1, 8, 16, 3), np.uint8)})
    whole, quarter = ("dog", [0, 0, 1, 1]), ("car", [0, 0, 0.5, 0.5])
    assert boxes(found) == ([whole, quarter] if form == "yolo" else [quarter, whole])


def test_features_of_tokens_maps_and_vectors(tmp_path: Path, gray: str) -> None:
    tokens = np.arange(2 * 10 * 3, dtype=np.float32).reshape(2, 10, 3)[:1]
    path = constant_outputs(tmp_path / "tokens.onnx", {"tokens": tokens})
    settings = {"input": {"size": [100, 100]}}
    (features,) = labeler(OnnxClip, path, **settings, skip=1).label({"rgb": IMAGES[:1]})
    np.testing.assert_array_equal(features, tokens[0, 1:].reshape(3, 3, 3))
    (vector,) = labeler(OnnxClipVector, path, **settings).label({"rgb": IMAGES[:1]})
    np.testing.assert_allclose(np.linalg.norm(vector.astype(np.float32)), 1, atol=1e-3)
    (pooled,) = labeler(OnnxClip, gray, input={"size": [8, 12]}, grid=[1, 1]).label({"rgb": IMAGES[:1]})
    np.testing.assert_allclose(pooled, IMAGES[0].mean() / 255, rtol=1e-3)


def test_input_is_prepared_as_described() -> None:
    image = Image.fromarray(IMAGES[0])
    squashed = prepared(image, InputConfig(size=(8, 12), color="bgr", layout="nhwc", dtype="uint8"))
    np.testing.assert_array_equal(squashed, IMAGES[0][..., ::-1])
    scaled = prepared(image, InputConfig(size=(8, 12), mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2)))
    np.testing.assert_allclose(scaled[2], (IMAGES[0][..., 2] / 255 - 0.3) / 2, atol=1e-6)
    assert placement((16, 8), InputConfig(size=(100, 100), resize="pad")) == (0, 25, 100, 50)
    padded = prepared(image, InputConfig(size=(12, 12), resize="pad", dtype="uint8", layout="nhwc"))
    assert (padded[:2] == 114).all() and (padded[-2:] == 114).all()
    np.testing.assert_array_equal(padded[2:10], IMAGES[0])
    values = at_image(padded[..., 0].astype(np.float32)[None], image, InputConfig(size=(12, 12), resize="pad"))
    np.testing.assert_allclose(values[0], IMAGES[0][..., 0])


def test_wrong_descriptions_are_named(gray: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no output depth\. It has: mean"):
        labeler(OnnxDepth, gray, outputs=["depth"]).label({"rgb": IMAGES})
    fixed = write_network(tmp_path / "fixed.onnx", [("Identity", ["images"], "y", {})], {}, ["y"], [1, 3, 4, 4])
    with pytest.raises(ValueError, match=r"not accept float32 \(1, 3, 224, 224\) \(it expects .* \[1, 3, 4, 4\]"):
        labeler(OnnxDepth, fixed).label({"rgb": IMAGES})
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="cannot be opened"):
        labeler(OnnxDepth, str(tmp_path / "broken.onnx")).label({"rgb": IMAGES})
    with pytest.raises(ValueError, match="there is no such file"):
        labeler(OnnxDepth, str(tmp_path / "absent.onnx"))
    with pytest.raises(ValueError, match="Choose near < far"):
        labeler(OnnxDepth, gray, near=3, far=2)


def test_the_kind_is_chosen_in_the_configuration(gray: str) -> None:
    config = LabelingConfig.model_validate({"labelers": {"depth": {"kind": "onnx", "path": gray, "license": "mit"}}})
    assert config.labelers == {"depth": "onnx_depth"}
    origin = LABELERS.get("onnx_depth")(config.settings["onnx_depth"]).origin()
    assert origin["model"] == "gray.onnx" and origin["license"] == "mit" and len(origin["sha256"]) == 64
