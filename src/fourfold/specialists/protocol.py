"""The specialist: one registered object that carries all that training, scoring and the comparison need of it.

A specialist learns one label from images alone, on the same images and labels as the generalist. To add one, register a
`Specialist` in a plug-in and name it under `specialists.models`.
"""

# N samples, B batch, H height, W width

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.labelers.fitting import FitConfig
from fourfold.modalities.class_table import ClassTable
from fourfold.model.fourm import FourM
from fourfold.plugins import Registry

Facts: TypeAlias = dict[str, Any]  # JSON that a network needs beside its weights, e.g. the names of its classes
MODEL = "model"  # in the facts of a fine-tuned network: the configuration of the generalist


class SpecialistConfig(Config):
    """Settings that every specialist has."""

    fit: FitConfig = FitConfig(steps=500, batch_size=32)  # one training
    flip: float = Field(0.5, ge=0, le=1)  # probability that a training image is mirrored


@dataclass(frozen=True)
class LabeledImages:
    """N images uint8 (N, H, W, 3) with one label each, in the format of the shards."""

    rgb: np.ndarray
    values: Any  # array (N, H, W), or a list for boxes
    class_table: ClassTable | None = None

    def __len__(self) -> int:
        return len(self.rgb)

    def take(self, indices: np.ndarray) -> "LabeledImages":
        """Return the samples at `indices`, in that order."""
        chosen = self.values[indices] if isinstance(self.values, np.ndarray) else [self.values[i] for i in indices]
        return LabeledImages(self.rgb[indices], chosen, self.class_table)


class SpecialistNetwork(nn.Module):
    """A network with its loss and its decoding."""

    @property
    def matrices(self) -> dict[str, int] | None:
        """What Muon updates, as for `build_optimizer`: kernels of convolutions, as in `fourfold.labelers.fitting`."""
        return {f"{name}.weight": 1 for name, module in self.named_modules() if isinstance(module, nn.Conv2d)}

    def used(self) -> nn.Module:
        """Return the module whose parameters a prediction needs."""
        return self

    @abstractmethod
    def losses(self, rgb_BHWC: Tensor, values: Any) -> dict[str, Tensor]:
        """Return the losses of a batch by name; their sum is minimized.

        Args:
            rgb_BHWC: images, uint8.
            values: their labels; an array (B, H, W), or a list of B values.
        """

    @abstractmethod
    def predict(self, rgb_BHWC: Tensor) -> np.ndarray | list[Any]:
        """Return the labels of images uint8 (B, H, W, 3) in the format of the shards."""


class Finetuned(SpecialistNetwork):
    """A network that starts from the generalist; its facts have the configuration of the generalist under `MODEL`."""

    @abstractmethod
    def start_from(self, generalist: FourM) -> None:
        """Copy the weights of a generalist with this configuration."""


@dataclass(frozen=True)
class Specialist:
    """What is trained, from which label, and how it is shown.

    Attributes:
        name: its name in `specialists.models` and of its files.
        title: for tables.
        target: the label that it predicts, e.g. "depth".
        source: where the method is described.
        config_class: the class of its settings.
        survey: training data → what the network must know of them.
        build: (settings, facts) → the untrained network.
        mirror: labels of a batch, bool (B,) → the same labels, mirrored where it is True.
        require: raises ValueError when a package is missing.
        is_finetuned: whether its network is a `Finetuned`, which starts from the pretrained generalist.
    """

    name: str
    title: str
    target: str
    source: str
    config_class: type[SpecialistConfig]
    survey: Callable[[LabeledImages], Facts]
    build: Callable[[Any, Facts], SpecialistNetwork]
    mirror: Callable[[Any, np.ndarray], Any]
    require: Callable[[], None] = lambda: None
    is_finetuned: bool = False


SPECIALISTS: Registry[Specialist] = Registry(
    "specialist", "Register it in a plug-in; see docs/guides/compare-with-specialists.md."
)


def mirrored_maps(values_BHW: np.ndarray, is_mirrored_B: np.ndarray) -> np.ndarray:
    """Return maps (B, H, W), mirrored from left to right where `is_mirrored_B` is True."""
    return np.where(is_mirrored_B[:, None, None], values_BHW[:, :, ::-1], values_BHW)


def mirrored_boxes(values: Sequence[dict[str, Any]], is_mirrored_B: np.ndarray) -> list[dict[str, Any]]:
    """Return values of `det`, mirrored from left to right where `is_mirrored_B` is True."""
    return [_mirrored(value) if flip else value for value, flip in zip(values, is_mirrored_B, strict=True)]


def _mirrored(value: dict[str, Any]) -> dict[str, Any]:
    boxes = [(instance, instance["box"]) for instance in value["instances"]]
    return {"instances": [{**instance, "box": [1 - box[2], box[1], 1 - box[0], box[3]]} for instance, box in boxes]}
