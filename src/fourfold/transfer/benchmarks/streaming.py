"""Examples of a benchmark that are read when a batch needs them, in a seeded order, while the batch before is learned."""

# B batch, S side of the model, H W original size

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fourfold.data.cursor import Cursor
from fourfold.evaluation.benchmarks.official import StoredExamples
from fourfold.evaluation.benchmarks.views import Box, View
from fourfold.seeds import numpy_generator
from fourfold.transfer.benchmark_settings import TrainedBenchmarkConfig
from fourfold.transfer.benchmarks.augmentation import color_jittered, draw_jitter, rand_augmented
from fourfold.transfer.benchmarks.parts import Crop, Labels, Part
from fourfold.transfer.examples import Examples, IndexBatches
from fourfold.transfer.tasks import TransferTask

SAMPLED = 64  # examples of which `labels` are read


@dataclass(frozen=True)
class StreamedExamples:
    """Examples of a benchmark that are read when a batch needs them; see `fourfold.transfer.tasks.ExampleSource`."""

    examples: StoredExamples
    task: TransferTask
    view: View  # how an image becomes an input of the model
    settings: TrainedBenchmarkConfig
    kind: Labels  # of the truth

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels, after they are read."""
        return self.view.side, self.view.side

    @property
    def prompts(self) -> Sequence[str]:
        """Nothing; questions are read with their images."""
        return ()

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """The class of each example of a classification task, int64 (N,)."""
        return self.task.make_targets(list(self.examples.truths), 0).classes if self.task.choices else {}

    @property
    def labels(self) -> list[Any]:
        """Labels of up to 64 examples at equal distances, as they are learned, for statistics; their files are read."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), SAMPLED)).round().astype(int)
        return self.task.make_targets([self._read(int(index), 0, 0)[1] for index in chosen], 0).labels

    def subset(self, indices: np.ndarray) -> "StreamedExamples":
        """Return some of the examples, in the order of `indices`."""
        return replace(self, examples=self.examples.subset(indices))

    def resized(self, side: int | None) -> "StreamedExamples":
        """Return the examples with images, and maps, of another size."""
        return self if side is None else replace(self, view=replace(self.view, side=side))

    def batches(self, order: IndexBatches, seed: int) -> Iterator[tuple[Examples, Cursor]]:
        """Yield the examples of each batch; the next batch is read while one is learned, with as many threads as torch has."""
        readers = ThreadPoolExecutor(torch.get_num_threads(), "read")  # decoding leaves Python's lock alone

        def begin() -> tuple[list[Future[tuple[np.ndarray, Any]]], Cursor]:
            indices, cursor = next(order)
            return [readers.submit(self._read, int(index), cursor.epoch, seed) for index in indices], cursor

        try:
            ahead = begin()
            while True:
                (parts, cursor), ahead = ahead, begin()
                yield self._together([part.result() for part in parts], seed), cursor
        finally:
            readers.shutdown(cancel_futures=True)

    def _read(self, index: int, epoch: int, seed: int) -> tuple[np.ndarray, Any]:
        """Return an input uint8 (S, S, 3), and the truth about it: of maps and boxes that of the part that is seen."""
        example, rng = self.examples[index], numpy_generator(seed, "part", epoch, index)
        settings, (height, width, _) = self.settings, example.rgb.shape
        part = self._part(height, width, rng)
        rgb = example.rgb
        if settings.color_jitter is not None:
            # Of the whole image, as in MultiMAE: its contrast does not depend on the part, and what surrounds it stays gray
            rgb = color_jittered(rgb, settings.color_jitter, numpy_generator(seed, "color_jitter", epoch, index))
        seen = part.image(rgb)
        truth = self.kind.of_part(example.truth, part, (height, width), self._view.boxes(height, width)[0])
        if settings.mirror and rng.random() < 0.5:
            seen, truth = seen[:, ::-1], self.kind.mirrored(truth)
        if settings.rand_augment is not None:
            seen = rand_augmented(seen, settings.rand_augment, numpy_generator(seed, "rand_augment", epoch, index))
        return seen, truth

    def _part(self, height: int, width: int, rng: np.random.Generator) -> Part:
        """Return the part of an image that is learned: a random one, or one of the parts that scoring sees."""
        side = self.view.side
        if self.settings.scale_jitter is not None:
            # Where scoring squashes an image to a square, it is also learned with this ratio of its sides
            size = (side, side) if self._view.name == "squash" else (height, width)
            return draw_jitter(size, side, self.settings.scale_jitter, rng)
        if self.settings.random_crop is not None:
            return Crop(random_box(height, width, self.settings.random_crop, rng), side)
        boxes = self._view.boxes(height, width)
        return Crop(boxes[int(rng.integers(len(boxes)))], side)

    @property
    def _view(self) -> View:
        """Windows are those of maps: a class, an answer and boxes belong to the whole image."""
        is_whole = self.view.name == "windows" and not self.kind.has_windows
        return replace(self.view, name="squash") if is_whole else self.view

    def _together(self, parts: Sequence[tuple[np.ndarray, Any]], seed: int) -> Examples:
        targets = self.task.make_targets([truth for _, truth in parts], seed)
        rgb = np.stack([image for image, _ in parts])
        return Examples(rgb, targets.prompts, targets.answers, targets.classes, targets.labels)


def random_box(height: int, width: int, area: tuple[float, float], rng: np.random.Generator) -> Box:
    """Return a random part of an image: top, left, height, width.

    Its share of the area is uniform in `area`, the logarithm of its ratio of width to height uniform in log(3/4) to log(4/3)
    (Szegedy et al. 2014, arXiv 1409.4842, section 6). Of ten parts the first that fits counts; else the center square.
    """
    for _ in range(10):
        pixels, ratio = height * width * rng.uniform(*area), float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        w, h = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return View("crop", 1).boxes(height, width)[0]
