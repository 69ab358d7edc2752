"""Networks as packages hold them, rewritten once as safetensors and JSON."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fourfold.labelers.packaged.graphs import GRAPH_FILE, WEIGHTS_FILE, Graph, Node
from fourfold.storage import write_json

# The types of TensorFlow (types.proto), by name or number
TYPES = {
    "DT_FLOAT": "float32",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_UINT8": "uint8",
    "DT_BOOL": "bool",
    "1": "float32",
    "3": "int32",
    "9": "int64",
    "4": "uint8",
    "10": "bool",
}
KEPT_ATTRIBUTES = {
    "strides", "dilations", "padding", "ksize", "epsilon", "align_corners", "half_pixel_centers", "axis", "DstT",
    "squeeze_dims", "begin_mask", "end_mask", "shrink_axis_mask", "new_axis_mask", "ellipsis_mask", "fused_ops", "alpha",
}  # fmt: skip
STORED = (("float32", "float32"), ("float32", "float16"), ("int32", "int32"))  # types of weights, and in the file
SPATIAL = ("strides", "dilations", "ksize")  # given for the four axes (B, H, W, C)


def convert_graph(model_file: Path, folder: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Write the part of a TensorFlow.js graph model between some nodes as `graph.json` and `weights.safetensors`.

    Args:
        model_file: `model.json`, beside its files of weights.
        folder: where the two files are written.
        inputs: nodes whose values will be given.
        outputs: nodes whose values are wanted.
    """
    model = json.loads(model_file.read_text(encoding="utf-8"))
    constants = _weights(model["weightsManifest"], model_file.parent)
    graph = Graph([_node(entry) for entry in model["modelTopology"]["node"] if entry["op"] in _computed(model)], constants)
    needed = graph._order(frozenset(inputs), tuple(outputs))
    nodes = [graph.nodes[name] for name in needed]
    used = {reference.partition(":")[0] for node in nodes for reference in node.inputs}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in constants.items() if name in used}, folder / WEIGHTS_FILE)
    entries = [{"name": n.name, "op": n.operation, "inputs": n.inputs, "attributes": n.attributes} for n in nodes]
    write_json(folder / GRAPH_FILE, entries)


def _computed(model: Mapping[str, Any]) -> set[str]:
    """Return the types of nodes that can be computed: no constants, no inputs, no loops."""
    from fourfold.labelers.packaged.operations import OPERATIONS

    return {entry["op"] for entry in model["modelTopology"]["node"]} & set(OPERATIONS)


def _weights(manifest: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Tensor]:
    """Return the constants of a graph model: raw little-endian numbers, one after the other."""
    found: dict[str, Tensor] = {}
    for group in manifest:
        content, offset = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", entry)["dtype"])
            if (entry["dtype"], stored.name) not in STORED:
                raise ValueError(
                    f"Weight {entry['name']!r} has dtype {entry['dtype']}, stored as {stored}; only float32, stored as "
                    "float32 or float16, and int32 are read."
                )
            count = math.prod(entry["shape"])
            values = np.frombuffer(content, dtype=stored.newbyteorder("<"), count=count, offset=offset)
            found[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]).astype(entry["dtype"]))
            offset += stored.itemsize * count
        if offset != len(content):
            sizes = f"the files of weights have {len(content)} bytes, the manifest describes {offset}"
            raise ValueError(f"{folder}: {sizes}. Download them again.")
    return found


def _node(entry: Mapping[str, Any]) -> Node:
    inputs = tuple(name for name in entry.get("input", []) if not name.startswith("^"))  # ^: order only
    attributes = {key: _value(value) for key, value in entry.get("attr", {}).items() if key in KEPT_ATTRIBUTES}
    attributes |= {key: attributes[key][1:3] for key in SPATIAL if key in attributes}
    return Node(entry["name"], entry["op"], inputs, attributes)


def _value(attribute: Mapping[str, Any]) -> Any:
    """Return an attribute of a node as a plain value."""
    if "list" in attribute:
        texts, numbers = (attribute["list"].get(kind, []) for kind in ("s", "i"))
        return [_text(value) for value in texts] or [int(number) for number in numbers]
    kind, value = next((key, value) for key, value in attribute.items() if key in ("s", "i", "f", "b", "type"))
    if kind == "s":
        return _text(value)
    if kind == "type":
        return TYPES[str(value)]
    return int(value) if kind == "i" else value


def _text(value: str | Sequence[int]) -> str:
    return (base64.b64decode(value) if isinstance(value, str) else bytes(value)).decode()


def convert_state_dict(pickled: Path, target: Path) -> None:
    """Write a pickled dictionary of tensors as safetensors. Torch's restricted unpickler refuses anything else."""
    tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, target)
