"""Labeled examples of a transfer task: what a run learns from, in memory or read when a batch needs it."""

# N examples, H height, W width

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from fourfold.data.cursor import Cursor

IndexBatches = Iterator[tuple[np.ndarray, Cursor]]  # of `fourfold.data.cursor.index_batches`


@dataclass(frozen=True)
class Targets:
    """What is asked and answered about N images, in their order. Each kind of task fills its own field."""

    prompts: list[str] = field(default_factory=list)  # "" where nothing is asked
    answers: list[str] = field(default_factory=list)
    classes: dict[str, np.ndarray] = field(default_factory=dict)  # by attribute, int64 (N,) indices into its choices
    labels: list[Any] = field(default_factory=list)  # of a task with a head: maps (H, W), boxes, ...


@dataclass(frozen=True)
class Examples:
    """N examples of one task, at most one per image: images uint8 (N, H, W, 3) and what is asked about them."""

    rgb: np.ndarray
    prompts: list[str]
    answers: list[str]
    classes: dict[str, np.ndarray]
    labels: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.rgb.shape[1], self.rgb.shape[2]

    def resized(self, side: int | None) -> "Examples":
        """Return the examples with images of another size; labels stay as they are.

        `side`: of the new images in pixels; None: as they are.
        """
        if side is None or self.size == (side, side):
            return self
        images = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in self.rgb]
        return replace(self, rgb=np.stack([np.asarray(image) for image in images]))

    def batches(self, order: IndexBatches, seed: int) -> Iterator[tuple["Examples", Cursor]]:
        """Yield the examples of each batch of indices; `seed` changes nothing, since nothing is drawn."""
        for indices, cursor in order:
            yield self.subset(indices), cursor

    def subset(self, indices: np.ndarray) -> "Examples":
        """Return some of the examples, in the order of `indices`."""
        columns = (self.prompts, self.answers, self.labels)
        prompts, answers, labels = ([column[i] for i in indices] if column else [] for column in columns)
        classes = {name: column[indices] for name, column in self.classes.items()}
        return Examples(self.rgb[indices], prompts, answers, classes, labels)


class ExampleSource(Protocol):
    """Examples that a run learns from: `Examples` in memory, or files that are read when a batch needs them."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""

    @property
    def prompts(self) -> Sequence[str]:
        """What is asked about each image; empty where this is not known without reading files."""

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """Classes by attribute, int64 (N,); empty where these are not known without reading files."""

    @property
    def labels(self) -> Sequence[Any]:
        """Labels of a task with a head: all, or those of some examples where files must be read."""

    def __len__(self) -> int: ...

    def subset(self, indices: np.ndarray) -> "ExampleSource":
        """Return some of the examples, in the order of `indices`."""

    def resized(self, side: int | None) -> "ExampleSource":
        """Return the examples with images of `side` × `side` pixels; None: as they are."""

    def batches(self, order: IndexBatches, seed: int) -> Iterator[tuple[Examples, Cursor]]:
        """Yield the examples of each batch of indices, with its cursor.

        `seed` determines what is drawn for an example, with its index and epoch.
        """


def balanced(classes_N: np.ndarray) -> np.ndarray:
    """Return an order int64 (N,) in which any first part has equally many of each class, as far as there are enough.

    So k labels of each of K classes (k-shot) are the first k · K. Within a class the order stays.
    """
    turn_N = np.zeros(len(classes_N), np.int64)
    for value in np.unique(classes_N):
        own = np.flatnonzero(classes_N == value)
        turn_N[own] = np.arange(len(own))
    return np.argsort(turn_N, kind="stable")
