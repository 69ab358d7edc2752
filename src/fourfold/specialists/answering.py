"""The ways of answering the tasks that are compared: each predicts labels of images, for scores and for latencies."""

# B samples, H height, W width

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig
from fourfold.labelers.protocol import Labeler
from fourfold.labelers.teachers import TeacherSet
from fourfold.modalities import SOURCE_LABELS
from fourfold.source_code import modules_of
from fourfold.specialists.code_size import count_lines, own_modules
from fourfold.specialists.protocol import Specialist, SpecialistNetwork
from fourfold.training.precision import default_device

logger = logging.getLogger(__name__)
BATCH = 64  # images of one forward pass while predictions are scored
FITTING = "fourfold.specialists.fitting"
SPECIALIST, FINETUNED, TOGETHER = "specialist", "fine-tuned", "specialists together"  # kinds of rows
GENERALIST_CODE = (
    "fourfold.tokenizers.training.tokenizer_set",
    "fourfold.tokenizers.pretokenizing",
    "fourfold.pretraining.pretrain",
    "fourfold.generation.any_to_any",
)
Answer = Callable[[np.ndarray, Sequence[str]], dict[str, Any]]  # images uint8 (B, H, W, 3), labels → values by label


@dataclass(frozen=True)
class Way:
    """One way of answering some tasks: a row of the table.

    Attributes:
        name: key in the results.
        title: for people.
        kind: what it is.
        targets: the labels that it predicts.
        answer: predicts some of them.
        modules: trained networks by name, of which a name counts once however many rows share it.
        entry_points: modules from which its code is reached.
        trained_with: names of the trainings that it consists of, for their costs.
        parts: names of the rows that it combines.
        is_timed: whether it computes its answers; labels that are looked up have no latency.
    """

    name: str
    title: str
    kind: str
    targets: tuple[str, ...]
    answer: Answer
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    entry_points: tuple[str, ...] = ()
    trained_with: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    is_timed: bool = True

    def size(self) -> dict[str, int | None]:
        """Return trained networks, parameters, modules and lines of code; None for what is not known."""
        code = own_modules(self.entry_points)
        return {
            "networks": len(self.modules) or None,
            "parameters": sum(p.numel() for module in self.modules.values() for p in module.parameters()) or None,
            "code_modules": len(code) or None,
            "code_lines": count_lines(code) or None,
        }


class WayPredictor:
    """A way as evaluation calls a model (`fourfold.evaluation.evaluate.Predictor`)."""

    def __init__(self, way: Way) -> None:
        self.way = way

    def predict(
        self, conditions: dict[str, Any], targets: Sequence[str], *, preset: str | GenerationConfig = "greedy", seed: int = 0
    ) -> dict[str, Any]:
        """Return labels of the images in `conditions["rgb"]`; nothing is drawn, so `preset` and `seed` do not matter."""
        rgb = conditions["rgb"]
        parts = [self.way.answer(rgb[first : first + BATCH], targets) for first in range(0, len(rgb), BATCH)]
        return {target: _joined([part[target] for part in parts]) for target in targets}


def specialist_way(specialist: Specialist, network: SpecialistNetwork) -> Way:
    """Return a trained specialist as a way to answer its one task."""

    def answer(rgb: np.ndarray, targets: Sequence[str]) -> dict[str, Any]:
        assert tuple(targets) == (specialist.target,)
        with torch.inference_mode():
            return {specialist.target: network.predict(torch.from_numpy(np.ascontiguousarray(rgb)).to(default_device()))}

    return Way(
        name=specialist.name,
        title=specialist.title,
        kind=FINETUNED if specialist.is_finetuned else SPECIALIST,
        targets=(specialist.target,),
        answer=answer,
        modules={specialist.name: network.used()},
        entry_points=(*modules_of([specialist.build]), FITTING, *(GENERALIST_CODE if specialist.is_finetuned else ())),
        trained_with=(*(["generalist"] if specialist.is_finetuned else []), specialist.name),
    )


def together(ways: Sequence[Way], name: str, title: str) -> Way:
    """Return several specialists, one for each task, as one way: an image goes through one after the other.

    A training that several of them build on, that of the generalist, counts once.
    """
    of_target = {way.targets[0]: way for way in ways}

    def answer(rgb: np.ndarray, targets: Sequence[str]) -> dict[str, Any]:
        return {target: of_target[target].answer(rgb, (target,))[target] for target in targets}

    return Way(
        name=name,
        title=title,
        kind=TOGETHER,
        targets=tuple(of_target),
        answer=answer,
        modules={key: module for way in ways for key, module in way.modules.items()},
        entry_points=tuple(dict.fromkeys(entry for way in ways for entry in way.entry_points)),
        trained_with=tuple(dict.fromkeys(key for way in ways for key in way.trained_with)),
        parts=tuple(way.name for way in ways),
    )


def generalist_way(any_to_any: AnyToAny, targets: Sequence[str]) -> Way:
    """Return the pretrained model with the tokenizers that the targets need."""
    tokenizers = {f"tokenizer of {target}": any_to_any.tokenizers.visual[target] for target in _visual(any_to_any, targets)}
    networks = {name: tokenizer.model for name, tokenizer in tokenizers.items()}
    return Way(
        name="generalist",
        title="4M, pretrained",
        kind="generalist",
        targets=tuple(targets),
        answer=lambda rgb, wanted: any_to_any.predict({"rgb": rgb}, list(wanted)),
        modules={"transformer": any_to_any.model, **networks},
        entry_points=GENERALIST_CODE,
        trained_with=("generalist",),
    )


def teachers_way(teachers: TeacherSet, targets: Sequence[str], image_BHWC: np.ndarray) -> Way:
    """Return the labelers of the targets, which label an image in one pass of the networks that they need.

    Args:
        teachers: the teachers.
        targets: labels.
        image_BHWC: an image that is labeled once: networks from elsewhere are loaded when they are needed.
    """
    labelers = {labeler.modality: labeler for labeler in teachers.labelers()}
    needed = _needed(labelers, targets)
    names = {labeler.teacher.name for labeler in needed if labeler.teacher is not None}
    networks = {name: network for name, network in teachers.networks.items() if name in names}

    def answer(rgb: np.ndarray, wanted: Sequence[str]) -> dict[str, Any]:
        batch: dict[str, Any] = {"__key__": [str(i) for i in range(len(rgb))], "rgb": rgb, "caption": [""] * len(rgb)}
        outputs: dict[str, Any] = {}
        for labeler in _needed(labelers, wanted):
            if (teacher := labeler.teacher) is not None and teacher.name not in outputs:
                outputs[teacher.name] = teacher.predict(teachers.networks[teacher.name], batch)
            output = outputs[labeler.teacher.name] if labeler.teacher is not None else None
            batch = {**batch, labeler.modality: labeler.label(batch, output)}
        return {target: batch[target] for target in wanted}

    try:
        answer(image_BHWC, targets)
        is_timed = True
    except ValueError as error:  # labels that come with the data, by the keys of its images
        logger.info("The latency of the teachers is not measured: %s", error)
        is_timed = False
    loaded = {labeler.name: value for labeler in needed for value in vars(labeler).values() if isinstance(value, nn.Module)}
    return Way(
        name="teachers",
        title="teachers",
        kind="teachers",
        targets=tuple(targets),
        answer=answer,
        modules=networks | loaded,
        is_timed=is_timed,
        entry_points=tuple(modules_of([*needed, *(one.teacher.train for one in needed if one.teacher is not None)])),
    )


def _needed(labelers: Mapping[str, Labeler], targets: Sequence[str]) -> list[Labeler]:
    """Return the labelers of some labels, and before each those whose labels it reads."""
    found: dict[str, Labeler] = {}

    def add(name: str) -> None:
        for required in labelers[name].requires:
            if required not in SOURCE_LABELS and required not in found:
                add(required)
        found.setdefault(name, labelers[name])

    for target in targets:
        add(target)
    return list(found.values())


def _visual(any_to_any: AnyToAny, targets: Sequence[str]) -> list[str]:
    return [target for target in targets if target in any_to_any.tokenizers.visual]


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [value for part in parts for value in part]
