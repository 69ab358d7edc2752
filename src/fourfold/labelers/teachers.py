"""Teachers: trained once, kept whole, and turned into labelers."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from fourfold.data.shards import ShardSet
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.mini_clip.network import ClipTeacher
from fourfold.labelers.protocol import Labeler, in_order
from fourfold.labelers.registry import TEACHERS, labeler
from fourfold.metric_log import MetricLog
from fourfold.reuse import claim, fingerprint
from fourfold.storage import read_json, sha256_file, write_bytes, write_json

logger = logging.getLogger(__name__)
SETTINGS_FILE = "teachers.json"


class TeacherSet:
    """The trained networks in one folder, and the labelers that rest on them."""

    def __init__(self, root: Path, config: LabelingConfig, networks: dict[str, nn.Module]) -> None:
        self.root = root
        self.config = config
        self.networks = networks

    @classmethod
    def load(cls, folder: Path) -> "TeacherSet":
        """Read what `train_teachers` wrote; raises ValueError when it is not there."""
        if not (folder / SETTINGS_FILE).exists():
            raise ValueError(f"{folder} holds no teachers. Run the pseudo_labeling stage, which trains them.")
        config = LabelingConfig.model_validate(read_json(folder / SETTINGS_FILE))
        return cls(folder, config, {name: _read(folder, name, config) for name in needed_teachers(config)})

    @property
    def clip(self) -> ClipTeacher:
        """The image-caption model whose features are the CLIP modality; raises ValueError when another labeler makes them."""
        if not isinstance(network := self.networks.get("clip"), ClipTeacher):
            raise ValueError("There is no 'clip' teacher here: labelers.clip in the configuration is not 'mini_clip'.")
        return network

    def labelers(self) -> list[Labeler]:
        """Return a labeler per modality, in an order in which each finds what it needs."""
        made: dict[str, Labeler] = {}
        for modality, name in self.config.labelers.items():
            entry = labeler(name)
            made[modality] = entry.build(self.networks[entry.teacher] if entry.teacher else None, self.config)
        return in_order(made, given=("rgb", "caption"))

    def digest(self) -> str:
        """Return a SHA-256 over the weights and over how labels are made from them."""
        files = {name: sha256_file(_path(self.root, name)) for name in self.networks}
        versions = {made.modality: f"{made.name} {made.version}" for made in self.labelers()}
        return hashlib.sha256(json.dumps([files, versions], sort_keys=True).encode()).hexdigest()


def train_teachers(
    shards: ShardSet, truth: ShardSet, config: LabelingConfig, seed: int, folder: Path, log: MetricLog
) -> TeacherSet:
    """Train the teachers that the configured labelers rest on, and keep them in `folder`.

    `shards` holds pictures and captions, `truth` the exact truth of `config.annotated_split`. A teacher that an interrupted
    run of the same settings has finished is not trained again.
    """
    nothing_is_learned_from = {"integration", "normals", "canny", "palette", "metadata", "camera", "batch_size"}
    settings = config.model_dump(mode="json", exclude=nothing_is_learned_from)
    inputs = {"shards": shards.digest(), "truth": truth.digest()}
    teachers = [TEACHERS[name] for name in needed_teachers(config)]
    claim(folder, fingerprint(__name__, inputs=inputs, uses=teachers, labeling=settings, seed=seed))
    for name in needed_teachers(config):
        if _path(folder, name).exists():
            logger.info("The %s teacher is already trained.", name)
            continue
        network, facts = TEACHERS[name].train(shards, truth, config, seed, log)
        _write(folder, name, network, facts)
    write_json(folder / SETTINGS_FILE, config.model_dump(mode="json"))
    return TeacherSet.load(folder)


def needed_teachers(config: LabelingConfig) -> list[str]:
    """Return the names of the teachers that the configured labelers rest on, each once."""
    return sorted({entry.teacher for entry in map(labeler, config.labelers.values()) if entry.teacher})


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _write(folder: Path, name: str, network: nn.Module, facts: dict[str, Any]) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    write_bytes(_path(folder, name), save(tensors, {"facts": json.dumps(facts)}))


def _read(folder: Path, name: str, config: LabelingConfig) -> nn.Module:
    path = _path(folder, name)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    network = TEACHERS[name].build(config, facts)
    network.load_state_dict(load_file(path))
    return network.eval()
