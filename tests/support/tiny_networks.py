"""Stand-ins for the packaged networks, in the form in which `make teachers` leaves them: random weights, real formats."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from fourfold.digests import record_digests
from fourfold.labelers.packaged import edges
from fourfold.labelers.packaged.boxes import (
    BOXES,
    CATEGORIES,
    DETECTORS,
    INPUT,
    NANODET_BINS,
    NANODET_OUTPUTS,
    NANODET_SIDE,
    NANODET_STRIDES,
    SCORES,
)
from fourfold.labelers.packaged.conse import CLASSES_FILE
from fourfold.labelers.packaged.efficientnet import LITE2_REPEATS
from fourfold.labelers.packaged.graphs import GRAPH_FILE, WEIGHTS_FILE
from fourfold.labelers.packaged.networks import (
    ABOUT_FILE,
    DEEPLAB,
    DEFAULT_FOLDER,
    EFFICIENTNET,
    HED,
    MINILM,
    MOVENET,
    NANODET,
    SSDLITE,
    Network,
    about,
)
from fourfold.labelers.packaged.poses import OUTPUT
from fourfold.labelers.packaged.sentences import SentenceEncoder
from fourfold.modalities.keypoints import JOINTS
from fourfold.tokenizers.text.vocabulary import COCO_CLASSES

# Where `make teachers` has put the real networks. Without them, the tests on photographs are skipped.
FETCHED = Path(os.environ.get("FOURFOLD_TEACHERS", Path(__file__).parents[2] / DEFAULT_FOLDER))
WIDTH = 24  # of the sentence embeddings
WORDS = ("[PAD]", "[UNK]", "a", "photo", "of", "cat", "photograph", "an", "astronaut", "cup", "coffee", "rocket", "flower")


def write_networks(folder: Path) -> Path:
    """Write all packaged networks into a folder, and return it."""
    _finished(folder, DEEPLAB, _graph(folder / DEEPLAB.name, *_brightest_channel()))
    _finished(folder, SSDLITE, _graph(folder / SSDLITE.name, *_two_boxes()))
    _finished(folder, NANODET, _graph(folder / NANODET.name, [], _one_box()))
    _finished(folder, MOVENET, _graph(folder / MOVENET.name, [], {OUTPUT: _standing_person()}))
    classifier = folder / EFFICIENTNET.name
    classifier.mkdir(parents=True)
    save_file(classifier_weights((8, 4, 4, 4, 4, 4, 4, 4), LITE2_REPEATS, 1000), classifier / "weights.safetensors")
    _finished(folder, EFFICIENTNET, classifier)
    sentences = folder / MINILM.name
    sentences.mkdir()
    encoder = sentence_encoder(WIDTH)
    save_file(dict(encoder.weights), sentences / "model.safetensors")
    encoder.tokenizer.save(str(sentences / "tokenizer.json"))
    embeddings = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(0))
    save_file({"embeddings": embeddings}, sentences / CLASSES_FILE)
    _finished(folder, MINILM, sentences)
    (folder / HED.name).mkdir()
    save_file(edge_weights(), folder / HED.name / edges.WEIGHTS_FILE)
    _finished(folder, HED, folder / HED.name)
    return folder


def _finished(folder: Path, network: Network, target: Path) -> None:
    (target / ABOUT_FILE).write_text(json.dumps(about(network)))
    record_digests(target, *(path.name for path in target.iterdir()))


def _graph(folder: Path, nodes: list[tuple[str, str, list[str], dict[str, Any]]], constants: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    entries = [{"name": name, "op": op, "inputs": inputs, "attributes": attributes} for name, op, inputs, attributes in nodes]
    (folder / GRAPH_FILE).write_text(json.dumps(entries))
    save_file({name: torch.from_numpy(np.array(array)) for name, array in constants.items()}, folder / WEIGHTS_FILE)
    return folder


def _brightest_channel() -> tuple[list[Any], dict[str, np.ndarray]]:
    """A segmentation into background (red), airplane (green) and bicycle (blue)."""
    nodes = [("float", "Cast", ["ImageTensor"], {"DstT": "float32"}), ("SemanticPredictions", "ArgMax", ["float", "axis"], {})]
    return nodes, {"axis": np.int32(3)}


def _two_boxes() -> tuple[list[Any], dict[str, np.ndarray]]:
    """A detector that sees a cup on the left, the surer the redder the first pixel, and a book on the right.

    The segmentation has neither class, so integration cannot reject them.
    """
    scores, least = np.zeros((1, 2, 90), np.float32), np.zeros((1, 2, 90), np.float32)
    cup, book = CATEGORIES.index("cup"), CATEGORIES.index("book")
    scores[0, 0, cup], least[0, 0, cup], least[0, 1, book] = 0.4 / 255, 0.5, 0.6
    boxes = np.array([[[[0, 0, 1, 0.5]], [[0, 0.5, 1, 1]]]], np.float32)
    constants = {
        "begin": np.zeros(4, np.int32), "size": np.array([-1, 1, 1, 1], np.int32), "flat": np.array([-1, 1, 1], np.int32),
        "flat4": np.array([-1, 1, 1, 1], np.int32), "scores": scores, "least": least, "boxes": boxes, "zero": np.float32(0),
    }  # fmt: skip
    nodes = [
        ("pixel", "Slice", [INPUT, "begin", "size"], {}),
        ("pixel3", "Reshape", ["pixel", "flat"], {}),
        ("more", "Mul", ["pixel3", "scores"], {}),
        (SCORES, "Add", ["more", "least"], {}),
        ("pixel4", "Reshape", ["pixel", "flat4"], {}),
        ("nothing", "Mul", ["pixel4", "zero"], {}),
        (BOXES, "Add", ["nothing", "boxes"], {}),
    ]
    return nodes, constants


def _one_box() -> dict[str, np.ndarray]:
    """A detector that sees a cup around the middle of each image, in the center of its coarsest grid."""
    found: dict[str, np.ndarray] = {}
    for grid, stride in enumerate(NANODET_STRIDES):
        cells = (NANODET_SIDE // stride) ** 2
        found[NANODET_OUTPUTS[grid]] = np.zeros((1, cells, len(COCO_CLASSES)), np.float32)
        found[NANODET_OUTPUTS[len(NANODET_STRIDES) + grid]] = np.zeros((1, cells, 4 * NANODET_BINS), np.float32)
    found[NANODET_OUTPUTS[2]][0, 84, DETECTORS["nanodet"].classes.index("cup")] = 0.9
    found[NANODET_OUTPUTS[5]][0, 84].reshape(4, NANODET_BINS)[:, 2] = 100  # all sides are 2 cells away
    return found


def _standing_person() -> np.ndarray:
    """What MoveNet sees in each image: a person, of whom the arms are hidden."""
    found_11J3 = np.zeros((1, 1, len(JOINTS), 3), np.float32)
    for index, joint in enumerate(JOINTS):
        x = {"left": 0.625, "right": 0.375}.get(joint.partition("_")[0], 0.5)
        found_11J3[0, 0, index] = (0.1 + 0.05 * index, x, 0.1 if "elbow" in joint or "wrist" in joint else 0.75)
    return found_11J3


def classifier_weights(widths: tuple[int, ...], repeats: tuple[int, ...], num_classes: int) -> dict[str, torch.Tensor]:
    """Return weights of an EfficientNet-lite whose kernels pass the first channel on."""
    weights: dict[str, torch.Tensor] = {}

    def add(name: str, shape: tuple[int, ...], norm: str) -> None:
        kernel = torch.zeros(shape)
        kernel[:, 0, shape[2] // 2, shape[3] // 2] = 1
        weights[f"{name}.weight"] = kernel
        for part, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0 - 1e-3)):
            weights[f"{norm}.{part}"] = torch.full((shape[0],), value)

    add("_conv_stem", (widths[0], 3, 3, 3), "_bn0")
    block, inputs = 0, widths[0]
    for width, number in zip(widths[1:], repeats, strict=True):
        for _ in range(number):
            add(f"_blocks.{block}._depthwise_conv", (inputs, 1, 3, 3), f"_blocks.{block}._bn1")
            add(f"_blocks.{block}._project_conv", (width, inputs, 1, 1), f"_blocks.{block}._bn2")
            block, inputs = block + 1, width
    add("_conv_head", (16, inputs, 1, 1), "_bn1")
    generator = torch.Generator().manual_seed(0)
    weights |= {"_fc.weight": torch.randn(num_classes, 16, generator=generator), "_fc.bias": torch.zeros(num_classes)}
    return weights


def edge_weights(width: int = 4) -> dict[str, torch.Tensor]:
    """Return weights of a HED with narrow layers that finds an edge wherever the image is dark."""
    weights: dict[str, torch.Tensor] = {}
    for block, count in enumerate(edges.CONVOLUTIONS, 1):
        for index in range(1, count + 1):
            inputs = 3 if block == index == 1 else width
            kernel = torch.zeros(width, inputs, 3, 3)
            kernel[:, 0, 1, 1] = 1
            weights |= {f"block{block}.{index}.kernel": kernel, f"block{block}.{index}.bias": torch.zeros(width)}
        weights |= {f"side{block}.kernel": torch.full((1, width, 1, 1), -1.0), f"side{block}.bias": torch.ones(1)}
    return weights | {"fuse.kernel": torch.full((1, 5, 1, 1), 0.2), "fuse.bias": torch.zeros(1)}


def sentence_encoder(width: int = WIDTH, layers: int = 2) -> SentenceEncoder:
    """Return an encoder with random weights and a few words."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"word_embeddings": len(WORDS), "position_embeddings": 32, "token_type_embeddings": 2}
    weights = {f"embeddings.{name}.weight": torch.randn(size, width, generator=generator) for name, size in shapes.items()}
    dense = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
    dense |= {"attention.output.dense": (width, width), "intermediate.dense": (32, width), "output.dense": (width, 32)}
    for layer in range(layers):
        for name, (outputs, inputs) in dense.items():
            weights[f"encoder.layer.{layer}.{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / 4
            weights[f"encoder.layer.{layer}.{name}.bias"] = torch.randn(outputs, generator=generator)
    norms = ["embeddings", *(f"encoder.layer.{i}.{part}output" for i in range(layers) for part in ("attention.", ""))]
    for name in norms:
        weights |= {f"{name}.LayerNorm.weight": torch.ones(width), f"{name}.LayerNorm.bias": torch.zeros(width)}
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return SentenceEncoder(weights, tokenizer)
