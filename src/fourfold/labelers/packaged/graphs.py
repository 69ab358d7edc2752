"""Frozen TensorFlow graphs, run with torch: each node by the operation of its type, as far as an output needs it.

Tensors keep TensorFlow's layout (B, H, W, C). In torch's terms this is the memory format "channels last", so convolutions take
them without a copy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fourfold.labelers.packaged.operations import OPERATIONS
from fourfold.suggestions import unknown_name

GRAPH_FILE, WEIGHTS_FILE = "graph.json", "weights.safetensors"


@dataclass(frozen=True)
class Node:
    """One operation: its name, type, the outputs that it reads (`name` or `name:1`), and its attributes."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph:
    """A graph and its constants."""

    def __init__(self, nodes: Sequence[Node], constants: Mapping[str, Tensor]) -> None:
        """Create a graph; raises ValueError when it has an operation that is not known here."""
        self.nodes = {node.name: node for node in nodes}
        self.constants = constants
        for node in nodes:
            if node.operation not in OPERATIONS:
                raise ValueError(unknown_name("operation of a graph", node.operation, OPERATIONS))

    @classmethod
    def load(cls, folder: Path) -> "Graph":
        """Read what `conversion.convert_graph` wrote."""
        entries = json.loads((folder / GRAPH_FILE).read_text(encoding="utf-8"))
        nodes = [Node(entry["name"], entry["op"], tuple(entry["inputs"]), entry["attributes"]) for entry in entries]
        return cls(nodes, load_file(folder / WEIGHTS_FILE))

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Return the outputs of some nodes.

        Args:
            inputs: values of nodes by name; what these depend on is not computed.
            outputs: names of nodes.
        """
        values: dict[str, tuple[Tensor, ...]] = {name: (value,) for name, value in self.constants.items()}
        values |= {name: (value,) for name, value in inputs.items()}
        remaining = self._last_uses(frozenset(inputs), tuple(outputs))
        with torch.inference_mode():
            for name, unneeded in remaining:
                node = self.nodes[name]
                arguments = [_output(values, reference) for reference in node.inputs]
                found = OPERATIONS[node.operation](arguments, node.attributes)
                values[name] = found if isinstance(found, tuple) else (found,)
                for passed in unneeded:
                    del values[passed]
        return [_output(values, name) for name in outputs]

    def _last_uses(self, given: frozenset[str], outputs: tuple[str, ...]) -> list[tuple[str, list[str]]]:
        """Return the nodes to compute, in order, each with the values that nobody reads after it."""
        key = (given, outputs)
        if key not in self._plans:
            order = self._order(given, outputs)
            last: dict[str, str] = {}
            for name in order:
                last.update(dict.fromkeys((_name(reference) for reference in self.nodes[name].inputs), name))
            kept = {*map(_name, outputs), *self.constants, *given}
            unneeded: dict[str, list[str]] = {name: [] for name in order}
            for value, reader in last.items():
                if value not in kept:
                    unneeded[reader].append(value)
            self._plans[key] = [(name, unneeded[name]) for name in order]
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[frozenset[str], tuple[str, ...]], list[tuple[str, list[str]]]]:
        return {}

    def _order(self, given: frozenset[str], outputs: tuple[str, ...]) -> list[str]:
        """Return the names of the nodes that the outputs need, each after its inputs."""
        ordered: dict[str, None] = {}
        waiting = [_name(name) for name in reversed(outputs)]
        while waiting:
            name = waiting[-1]
            if name in ordered or name in given or name in self.constants:
                waiting.pop()
                continue
            if name not in self.nodes:
                raise ValueError(unknown_name("node of the graph", name, self.nodes))
            needed = [_name(reference) for reference in self.nodes[name].inputs]
            missing = [one for one in needed if one not in ordered and one not in given and one not in self.constants]
            if missing:
                waiting += missing
            else:
                ordered[waiting.pop()] = None
        return list(ordered)


def _name(reference: str) -> str:
    return reference.partition(":")[0]


def _output(values: Mapping[str, tuple[Tensor, ...]], reference: str) -> Tensor:
    name, _, index = reference.partition(":")
    return values[name][int(index or 0)]
