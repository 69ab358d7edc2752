"""The interface of a labeler and of a teacher. A labeler is one registered class that carries everything the rest needs.

To add one, subclass `Labeler`, register it, and name it in `conf/` (`docs/guides/add-a-labeler.md`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import nn

from fourfold.configuration import Config
from fourfold.data.shards import ShardSet
from fourfold.labelers.checks import ValueLimits, find_problem
from fourfold.modalities import label as label_entry
from fourfold.modalities.camera import Camera
from fourfold.modalities.class_table import ClassTable
from fourfold.training.run_context import RunContext

Batch: TypeAlias = Mapping[str, Any]
"""Columns of equal length B: `rgb` uint8 (B, H, W, 3), `caption` list of str, and the labels of the labelers that ran before,
in the formats of `fourfold.modalities.LABELS`. Nobody changes it: the labeling loop makes a new one for each step."""

Facts: TypeAlias = dict[str, Any]  # JSON that a teacher needs beside its weights, e.g. its vocabulary


@dataclass(frozen=True)
class TrainingData:
    """What a teacher may learn from."""

    shards: ShardSet  # `rgb` and `caption`
    truth: ShardSet  # exact labels of `annotated_split`
    annotated_split: str
    caption_splits: tuple[str, ...]  # splits whose images and captions a teacher may use


@dataclass(frozen=True)
class Teacher:
    """A network that is trained before labeling. Labelers that name the same teacher share its weights and its forward pass.

    Attributes:
        name: its name in `pseudo_labeling.teachers`, and of its file.
        config_class: the class of its settings.
        train: (data, settings, context) → a trained network and its facts. The context has the seed, the metric log and a
            folder for `fourfold.labelers.fitting.fit`, so that a killed training resumes.
        build: (settings, facts) → an untrained network, into which saved weights are loaded.
        predict: (network, batch) → outputs, computed once for each batch and passed to all labelers of this teacher.
    """

    name: str
    config_class: type[Config]
    train: Callable[[TrainingData, Any, RunContext], tuple[nn.Module, Facts]]
    build: Callable[[Any, Facts], nn.Module]
    predict: Callable[[Any, Batch], Any]


@dataclass(frozen=True)
class Rated:
    """A label with how sure its labeler is of it, from 0 to 1."""

    value: Any
    confidence: float


@dataclass(frozen=True)
class LabelingContext:
    """What labelers share: the camera assumed for all images, and the class tables of the configured labelers by modality."""

    camera: Camera = field(default_factory=Camera)
    class_tables: Mapping[str, ClassTable] = field(default_factory=dict)


class Labeler(ABC):
    """Produces one modality for every sample of a batch.

    Class attributes are what the configuration, the integration and the reports read; `requires` may also be set by an
    instance, when it depends on the settings.
    """

    name: ClassVar[str]  # in `conf/` and in error messages
    title: ClassVar[str]  # one line for people
    modality: ClassVar[str]  # an entry of `fourfold.modalities.LABELS`
    kind: ClassVar[str] = ""  # the family in `fourfold.labelers.kinds` by which `conf/` may name it; "" for none
    version: ClassVar[str] = "1"  # raise it when the same settings and weights give other labels: old ones become invalid
    rated: ClassVar[bool] = False  # its labels are `Rated`
    config_class: ClassVar[type[Config]] = Config  # of its section in `pseudo_labeling.settings`
    teacher: ClassVar[Teacher | None] = None  # the network that it reads, if that is trained here
    requires: tuple[str, ...] = ("rgb",)  # columns that it reads, which may be other labels: they decide the order

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        """Create a labeler.

        Args:
            config: its settings, an instance of `config_class`; None takes the defaults.
            context: what labelers share; None takes the default camera and no class tables.
        """
        self.config = self.config_class() if config is None else config
        self.context = LabelingContext() if context is None else context

    @abstractmethod
    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        """Return B values in the stored format of the modality (`fourfold.modalities.LABELS`), as `Rated` if it is `rated`.

        Args:
            batch: the columns named in `requires`, at least; it is not changed.
            output: what `teacher.predict` returned for this batch; None without a teacher.
        """

    @classmethod
    def class_table(cls, config: Any) -> ClassTable | None:
        """Return what the class ids mean that a labeler of these settings produces; None when it produces none."""
        return None

    @classmethod  # noqa: B027  most labelers need nothing
    def require(cls, config: Any) -> None:
        """Raise ValueError when a package or file is missing that a labeler of these settings needs; it loads none of them.

        A run calls it before its first stage.
        """

    def origin(self) -> dict[str, Any]:
        """Return what manifests and cards record about weights from elsewhere; empty for what is trained or computed here.

        Usual keys: `kind`, `model`, `revision`, `license`, `sha256` (of the weights), `software`. Equal origins, settings and
        versions must give equal labels.
        """
        return {}

    @classmethod
    def find_problem(cls, value: Any, limits: ValueLimits) -> str | None:
        """Return what is impossible about a label, as a phrase for an error message; None when nothing is.

        By default the check of the modality's kind (`fourfold.labelers.checks`).
        """
        return find_problem(label_entry(cls.modality).kind, value, limits)


@runtime_checkable
class ImageTextEncoder(Protocol):
    """A model of images and texts in one space, as evaluation and zero-shot classification need it."""

    def encode_image(self, rgb_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, C) and unit vectors (B, C), float32, of images uint8 (B, H, W, 3)."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (B, C) float32."""

    def pool(self, features_BhwC: np.ndarray) -> np.ndarray:
        """Return unit vectors (B, C) float32 of patch features (B, h, w, C), encoded or predicted."""


def in_order(labelers: Mapping[str, Labeler], given: tuple[str, ...]) -> list[Labeler]:
    """Return the labelers in an order in which each one's required columns exist, starting from the columns `given`.

    Raises ValueError that names the columns that nobody produces, or that are required in a circle.
    """
    done, ordered, waiting = set(given), [], dict(sorted(labelers.items()))
    while waiting:
        ready = [modality for modality, labeler in waiting.items() if done.issuperset(labeler.requires)]
        if not ready:
            missing = {modality: sorted(set(labeler.requires) - done) for modality, labeler in waiting.items()}
            raise ValueError(
                f"Labels cannot be produced: {missing} are required, {', '.join(sorted(given))} are given. "
                "Add labelers for the missing ones under pseudo_labeling.labelers."
            )
        ordered += [waiting.pop(modality) for modality in ready]
        done.update(ready)
    return ordered
