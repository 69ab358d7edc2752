"""The operations of graphs against their definition, and a small graph model in the format of TensorFlow.js end to end."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fourfold.labelers.boxes import boxes_of, non_maximum_suppression
from fourfold.labelers.packaged.conversion import convert_graph, convert_state_dict
from fourfold.labelers.packaged.graphs import Graph, Node
from fourfold.labelers.packaged.operations import OPERATIONS
from fourfold.metrics.boxes import box_iou

RNG = np.random.default_rng(0)


def run(operation: str, *inputs: object, **attributes: object) -> torch.Tensor:
    found = OPERATIONS[operation]([torch.as_tensor(one) for one in inputs], attributes)
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize(("size", "stride", "kernel", "dilation"), [(7, 2, 3, 1), (8, 2, 3, 1), (9, 1, 5, 2), (6, 3, 2, 1)])
def test_convolution_pads_as_tensorflow_defines(size: int, stride: int, kernel: int, dilation: int) -> None:
    image, weights = RNG.normal(size=(1, size, size, 2)), RNG.normal(size=(kernel, kernel, 2, 3))
    found = run("Conv2D", image, weights, strides=[stride] * 2, dilations=[dilation] * 2, padding="SAME").numpy()
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    padded = np.pad(image[0], [(total // 2, total - total // 2)] * 2 + [(0, 0)])
    expected = np.zeros((outputs, outputs, 3))
    for row, column in np.ndindex(outputs, outputs):
        rows, columns = (start * stride + dilation * np.arange(kernel) for start in (row, column))
        expected[row, column] = np.einsum("hwi,hwio->o", padded[np.ix_(rows, columns)], weights)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)


def test_depthwise_convolution_keeps_channels_apart() -> None:
    image, weights = RNG.normal(size=(2, 6, 5, 3)), RNG.normal(size=(3, 3, 3, 2))
    found = run("DepthwiseConv2dNative", image, weights, strides=[1, 1], padding="SAME")
    for channel in range(3):
        one = run(
            "Conv2D", image[..., channel : channel + 1], weights[:, :, channel : channel + 1], strides=[1, 1], padding="SAME"
        )
        np.testing.assert_allclose(found[..., 2 * channel : 2 * channel + 2], one, atol=1e-12)


def test_space_to_batch_makes_a_dilated_convolution() -> None:
    """TensorFlow's graphs write a dilated convolution as three operations."""
    image, weights = RNG.normal(size=(1, 8, 8, 2)), RNG.normal(size=(3, 3, 2, 2))
    around = [[2, 2], [2, 2]]
    small = run("SpaceToBatchND", image, [2, 2], around)
    convolved = run("Conv2D", small, weights, strides=[1, 1], padding="VALID")
    found = run("BatchToSpaceND", convolved, [2, 2], [[0, 0], [0, 0]])
    expected = run("Conv2D", image, weights, strides=[1, 1], dilations=[2, 2], padding="SAME")
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_resize_aligns_corners_or_the_first_pixels() -> None:
    image = torch.from_numpy(RNG.normal(size=(1, 5, 4, 2)))
    aligned = run("ResizeBilinear", image, [9, 13], align_corners=True)
    expected = F.interpolate(image.movedim(-1, 1), (9, 13), mode="bilinear", align_corners=True).movedim(1, -1)
    np.testing.assert_allclose(aligned, expected, atol=1e-6)
    legacy = run("ResizeBilinear", torch.arange(4.0).view(1, 1, 4, 1), [1, 8], align_corners=False)
    np.testing.assert_allclose(legacy.flatten(), [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])


def test_resize_with_centers_of_pixels_at_halves() -> None:
    image = torch.from_numpy(RNG.normal(size=(1, 5, 4, 2)))
    for size in ((10, 8), (3, 7)):
        found = run("ResizeBilinear", image, list(size), align_corners=False, half_pixel_centers=True)
        expected = F.interpolate(image.movedim(-1, 1), size, mode="bilinear", align_corners=False).movedim(1, -1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fused_convolution_is_its_parts() -> None:
    image, kernel, bias = RNG.normal(size=(1, 4, 4, 2)), RNG.normal(size=(3, 3, 2, 2)), RNG.normal(size=2)
    attributes = {"strides": [1, 1], "dilations": [1, 1], "padding": "SAME"}
    sum_ = run("Conv2D", image, kernel, **attributes) + torch.from_numpy(bias)
    fused = run("_FusedConv2D", image, kernel, bias, fused_ops=["BiasAdd", "Relu"], **attributes)
    np.testing.assert_array_equal(fused, sum_.relu())
    leaky = run("_FusedConv2D", image, kernel, bias, fused_ops=["BiasAdd", "LeakyRelu"], alpha=0.1, **attributes)
    np.testing.assert_allclose(leaky, np.where(sum_ > 0, sum_, 0.1 * sum_))
    depthwise = run("FusedDepthwiseConv2dNative", image, kernel[..., :1], bias, fused_ops=["BiasAdd"], **attributes)
    np.testing.assert_array_equal(depthwise, run("DepthwiseConv2dNative", image, kernel[..., :1], **attributes) + bias)
    with pytest.raises(ValueError, match="fused with Elu; known here: BiasAdd, LeakyRelu"):
        run("_FusedConv2D", image, kernel, bias, fused_ops=["BiasAdd", "Elu"], **attributes)


def test_the_largest_of_a_window_ignores_the_border() -> None:
    image = -1 - torch.arange(25.0).view(1, 5, 5, 1)  # a border of zeros would be larger
    found = run("MaxPool", image, ksize=[3, 3], strides=[2, 2], padding="SAME")[0, ..., 0]
    assert found.tolist() == [[-1, -2, -4], [-6, -7, -9], [-16, -17, -19]]
    assert run("MaxPool", image, ksize=[3, 3], strides=[2, 2], padding="VALID")[0, ..., 0].tolist() == [[-1, -3], [-11, -13]]


def test_places_of_a_tensor() -> None:
    values = torch.arange(24).view(2, 3, 4)
    assert run("GatherNd", values, [[0, 1], [1, 2]]).tolist() == [[4, 5, 6, 7], [20, 21, 22, 23]]
    assert run("GatherNd", values, [[[1, 0, 3]]]).tolist() == [[15]]
    assert run("SparseToDense", [[0, 1], [1, 0]], [2, 2], [5, 6], 9).tolist() == [[9, 5], [6, 9]]
    assert run("SparseToDense", [2], [3], 1, 0).tolist() == [0, 0, 1]
    assert run("SparseToDense", torch.zeros((0, 1)), [2], torch.zeros(0), 7).tolist() == [7, 7]
    assert run("PadV2", [[1]], [[1, 0], [0, 1]], -3).tolist() == [[-3, -3], [1, -3]]
    assert [part.tolist() for part in OPERATIONS["SplitV"]([values[0, :1], torch.tensor([1, 3]), torch.tensor(1)], {})] == [
        [[0]],
        [[1, 2, 3]],
    ]
    assert run("FloorDiv", [-7, 7], [2, 2]).tolist() == [-4, 3]
    assert run("SquaredDifference", [1.0], [4.0]).tolist() == [9] == run("Sqrt", [81.0]).tolist()


def test_slices_and_shapes() -> None:
    values = torch.arange(24).view(2, 3, 4)
    assert run("StridedSlice", values, [0, 1, 0], [1, 3, 4], [1, 1, 2], shrink_axis_mask=1).tolist() == [[4, 6], [8, 10]]
    assert run("StridedSlice", values, [1, 9, 2], [9, 9, 9], [1, 1, 1], begin_mask=2, end_mask=6).shape == (1, 3, 2)
    assert run("Slice", values, [0, 1, 2], [1, -1, 1]).tolist() == [[[6], [10]]]
    assert run("Shape", values).tolist() == [2, 3, 4]
    assert run("Pack", torch.tensor(1), torch.tensor(2), axis=0).tolist() == [1, 2]
    assert run("Pad", values[0], [[1, 0], [0, 2]]).shape == (4, 6)
    assert run("Squeeze", values[:1, :, :1], squeeze_dims=[0]).shape == (3, 1)
    scaled = run("FusedBatchNorm", torch.tensor([3.0]), *map(torch.tensor, ([2.0], [1.0], [1.0], [4.0])), epsilon=0.0)
    assert scaled.tolist() == [3.0]


def write_graph(folder: Path) -> Path:
    """Write y = relu6(conv(2 · x) + bias) as a graph model of TensorFlow.js, with its weights in two files."""
    weights = {
        "kernel": RNG.normal(size=(1, 1, 3, 2)).astype("<f4"),
        "bias": np.array([0.5, -0.5], "<f4"),
        "two": np.float32(2),
    }
    content = b"".join(np.asarray(one).tobytes() for one in weights.values())
    (folder / "part1").write_bytes(content[:10])
    (folder / "part2").write_bytes(content[10:])
    described = [{"name": name, "shape": list(np.shape(one)), "dtype": "float32"} for name, one in weights.items()]
    strides, same = {"list": {"i": ["1", "1", "1", "1"]}}, {"s": base64.b64encode(b"SAME").decode()}
    nodes = [
        {"name": "x", "op": "Placeholder", "attr": {}},
        {"name": "resizing", "op": "TensorArrayV3", "input": ["x"], "attr": {}},  # no operation that is known here
        {"name": "image", "op": "Identity", "input": ["resizing"], "attr": {}},
        *({"name": name, "op": "Const", "attr": {}} for name in weights),
        {"name": "scaled", "op": "Mul", "input": ["image", "two", "^bias"], "attr": {"T": {"type": "DT_FLOAT"}}},
        {"name": "conv", "op": "Conv2D", "input": ["scaled", "kernel"], "attr": {"strides": strides, "padding": same}},
        {"name": "sum", "op": "BiasAdd", "input": ["conv", "bias"], "attr": {}},
        {"name": "y", "op": "Relu6", "input": ["sum"], "attr": {}},
    ]
    manifest = [{"paths": ["part1", "part2"], "weights": described}]
    (folder / "model.json").write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}))
    return folder / "model.json"


def test_a_graph_model_is_converted_and_run(tmp_path: Path) -> None:
    convert_graph(write_graph(tmp_path), tmp_path / "converted", ["image"], ["y"])
    assert sorted(path.name for path in (tmp_path / "converted").iterdir()) == ["graph.json", "weights.safetensors"]
    graph = Graph.load(tmp_path / "converted")
    image = torch.from_numpy(RNG.normal(size=(2, 4, 5, 3)).astype(np.float32))
    found, again = graph.run({"image": image}, ["y", "y"])
    expected = (2 * image @ graph.constants["kernel"][0, 0] + graph.constants["bias"]).clamp(0, 6)
    torch.testing.assert_close(found, expected)
    assert again is found
    with pytest.raises(ValueError, match="Unknown node of the graph 'z'"):
        graph.run({"image": image}, ["z"])


def test_an_operation_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown operation of a graph 'Conv3D'\. Did you mean 'Conv2D'"):
        Graph([Node("a", "Conv3D", (), {})], {})


def test_weights_that_are_cut_off_are_an_error(tmp_path: Path) -> None:
    file = write_graph(tmp_path)
    (tmp_path / "part2").write_bytes((tmp_path / "part2").read_bytes() + b"1234")
    with pytest.raises(ValueError, match="have 40 bytes, the manifest describes 36"):
        convert_graph(file, tmp_path / "converted", ["image"], ["y"])


def test_pickles_with_more_than_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": Path("x")}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match="weights_only"):
        convert_state_dict(tmp_path / "bad.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_boxes_that_cover_each_other_lose_the_one_with_the_lower_score() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [3, 3, 4, 4], [1, 0, 3, 2]], float)
    np.testing.assert_allclose(box_iou(boxes[:1], boxes)[0], [1, 0.95, 0, 1 / 3])
    assert non_maximum_suppression(boxes, np.array([0.5, 0.9, 0.1, 0.4]), 0.5).tolist() == [1, 3, 2]
    assert non_maximum_suppression(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_boxes_are_clipped_sorted_and_limited() -> None:
    found = boxes_of([[-0.1, 0, 0.5, 2], [0.5, 0.5, 0.5, 0.9], [0, 0, 1, 1]], ["a", "b", "c"], [0.1, 0.9, 0.5], 5)["instances"]
    assert [(one["class_name"], one["box"]) for one in found] == [("c", [0, 0, 1, 1]), ("a", [0, 0, 0.5, 1])]
    assert len(boxes_of([[0, 0, 1, 1]] * 3, ["a"] * 3, [1, 1, 1], 2)["instances"]) == 2


def test_weights_stored_in_half_precision_are_read_and_codes_are_refused(tmp_path: Path) -> None:
    values = RNG.normal(size=(2, 3)).astype("<f2")
    (tmp_path / "part").write_bytes(values.tobytes() + np.int32(4).tobytes())
    half = {"name": "half", "shape": [2, 3], "dtype": "float32", "quantization": {"dtype": "float16"}}
    weights = [half, {"name": "four", "shape": [], "dtype": "int32"}]
    node = {"name": "y", "op": "Mul", "input": ["half", "four"], "attr": {}}

    def convert() -> None:
        manifest = [{"paths": ["part"], "weights": weights}]
        (tmp_path / "model.json").write_text(json.dumps({"modelTopology": {"node": [node]}, "weightsManifest": manifest}))
        convert_graph(tmp_path / "model.json", tmp_path / "converted", [], ["y"])

    convert()
    (found,) = Graph.load(tmp_path / "converted").run({}, ["y"])
    np.testing.assert_array_equal(found, values.astype(np.float32) * 4)
    half["quantization"] = {"dtype": "uint8", "scale": 0.1, "min": -1.0}
    with pytest.raises(ValueError, match="dtype float32, stored as uint8; only float32, stored as float32 or float16"):
        convert()
