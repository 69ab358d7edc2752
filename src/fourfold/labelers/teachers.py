"""Teachers on disk: trained once, saved as safetensors, and loaded with the labelers that use them."""

import hashlib
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from fourfold.data.shards import ShardSet
from fourfold.digests import check_digests, is_intact, write_recorded, write_recorded_json
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.protocol import (
    Batch,
    Facts,
    ImageTextEncoder,
    Labeler,
    LabelingContext,
    Teacher,
    TrainingData,
    in_order,
)
from fourfold.metric_log import MetricLog
from fourfold.modalities import SOURCE_LABELS
from fourfold.reuse import claim, fingerprint
from fourfold.storage import read_json
from fourfold.suggestions import unknown_name
from fourfold.training.histories import read_history
from fourfold.training.independent import train_each
from fourfold.training.loop import HISTORY_FILE
from fourfold.training.run_context import RunContext

logger = logging.getLogger(__name__)
SETTINGS_FILE = "teachers.json"
REMEDY = "Run the pseudo_labeling stage again (kedro run --pipelines=pseudo_labeling): it trains what is missing or changed."


class TeacherSet:
    """The trained networks of one folder, and the labelers that the configuration names."""

    def __init__(self, root: Path, config: LabelingConfig, networks: dict[str, nn.Module], weights: dict[str, str]) -> None:
        self.root = root
        self.config = config
        self.weights = weights  # digests by name of the teacher
        self.networks = networks  # by name of the teacher

    @classmethod
    def load(cls, folder: Path) -> "TeacherSet":
        """Read what `train_teachers` wrote; raises ValueError when the folder holds no finished set, or a changed file."""
        if not (folder / SETTINGS_FILE).exists():
            raise ValueError(f"{folder} holds no teachers. Run the pseudo_labeling stage, which trains them.")
        config = LabelingConfig.model_validate(read_json(folder / SETTINGS_FILE))
        weights = [_path(folder, name).name for name in config.required_teachers()]
        record = check_digests(folder, REMEDY, SETTINGS_FILE, *weights)
        networks = {name: _read(folder, teacher, config) for name, teacher in config.required_teachers().items()}
        return cls(folder, config, networks, {name: record[_path(folder, name).name] for name in networks})

    def labelers(self) -> list[Labeler]:
        """Return a labeler for each modality, in an order in which required labels come first.

        What reads captions comes after a labeler of captions.
        """
        return in_order(self._labelers, given=tuple(n for n in (*SOURCE_LABELS, "source") if n not in self._labelers))

    @cached_property
    def _labelers(self) -> dict[str, Labeler]:
        config = self.config
        context = LabelingContext(config.camera, config.class_tables())
        return {m: entry(config.settings_of(entry), context) for m, entry in config.labeler_classes().items()}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Return the outputs of every teacher for a batch, by name: one forward pass for all labelers that share a teacher."""
        teachers = self.config.required_teachers()
        return {name: teachers[name].predict(network, batch) for name, network in self.networks.items()}

    def image_text_encoder(self, name: str) -> ImageTextEncoder:
        """Return a teacher or labeler that encodes images and texts, by its name, e.g. `mini_clip`.

        Raises ValueError that lists those of this set when there is none of that name.
        """
        encoders = self.image_text_encoders()
        if name not in encoders:
            remedy = "Choose one of them, or add a labeler that encodes images and texts under pseudo_labeling.labelers."
            raise ValueError(unknown_name("image-text encoder", name, encoders, remedy))
        return encoders[name]

    def image_text_encoders(self) -> dict[str, ImageTextEncoder]:
        """Return the teachers and labelers of this set that encode images and texts, by name."""
        candidates: dict[str, Any] = {labeler.name: labeler for labeler in self._labelers.values()} | self.networks
        return {name: candidate for name, candidate in sorted(candidates.items()) if isinstance(candidate, ImageTextEncoder)}

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return what is recorded about weights from elsewhere, by modality."""
        return {labeler.modality: origin for labeler in self.labelers() if (origin := labeler.origin())}

    def histories(self) -> dict[str, list[dict[str, float]]]:
        """Return the curves of each teacher's training, by name; without those that were trained elsewhere."""
        found = {name: read_history(self.root / f"{name}-{HISTORY_FILE}") for name in self.config.required_teachers()}
        return {name: history for name, history in found.items() if history}

    def digest(self) -> str:
        """Return a SHA-256 over the weights of the teachers, those from elsewhere too, and the versions of the labelers."""
        versions = {labeler.modality: f"{labeler.name} {labeler.version}" for labeler in self.labelers()}
        parts = [self.weights, versions, *([origins] if (origins := self.origins()) else [])]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def train_teachers(
    shards: ShardSet, truth: ShardSet, config: LabelingConfig, seed: int, folder: Path, log: MetricLog
) -> TeacherSet:
    """Train the teachers of the configured labelers, and save them in `folder`.

    A teacher that an interrupted run with the same settings and inputs has finished is not trained again, and one that it
    has not finished resumes from its last checkpoint.

    Args:
        shards: images and captions.
        truth: exact labels of `config.annotated_split`.
        config: the labelers, and the settings of their teachers.
        seed: the seed of the run.
        folder: where the weights are saved.
        log: receives the training losses.
    """
    # 1) Claim the folder. Only what teachers are trained with counts: settings of labelers leave trained teachers valid.
    teachers = config.required_teachers()
    settings = {name: config.settings_of_teacher(teacher).model_dump(mode="json") for name, teacher in teachers.items()}
    work = fingerprint(
        __name__,
        inputs={"shards": shards.digest(), "truth": truth.digest()},
        uses=[teacher.train for teacher in teachers.values()],
        teachers=settings,
        annotated_split=config.annotated_split,
        caption_splits=config.caption_splits,
        seed=seed,
    )
    claim(folder, work)
    # 2) Train what is missing
    data = TrainingData(shards, truth, config.annotated_split, config.caption_splits)

    def train_one(name: str, log: MetricLog) -> None:
        with RunContext(seed, folder, log).scratch(f"{name}-checkpoints", f"{name}-{HISTORY_FILE}") as context:
            network, facts = teachers[name].train(data, config.settings_of_teacher(teachers[name]), context)
            _write(folder, name, network, facts)

    missing = []
    for name in teachers:
        if is_intact(folder, _path(folder, name).name, remedy="Training it again."):
            logger.info("Teacher %s is already trained.", name)
        else:
            missing.append(name)
    train_each(train_one, missing, RunContext(seed, folder, log))
    # 3) The settings, written last, mark the set as complete
    write_recorded_json(folder, SETTINGS_FILE, config.model_dump(mode="json"))
    return TeacherSet.load(folder)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _write(folder: Path, name: str, network: nn.Module, facts: Facts) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    write_recorded(folder, _path(folder, name).name, save(tensors, {"facts": json.dumps(facts)}))


def _read(folder: Path, teacher: Teacher, config: LabelingConfig) -> nn.Module:
    path = _path(folder, teacher.name)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    network = teacher.build(config.settings_of_teacher(teacher), facts)
    network.load_state_dict(load_file(path))
    return network.eval()
