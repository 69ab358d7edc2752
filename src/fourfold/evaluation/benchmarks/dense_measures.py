"""Depth, normals and segmentation of official benchmarks."""

# H W image, C classes

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fourfold import images
from fourfold.evaluation.benchmarks.official import Example, Measure, Run
from fourfold.evaluation.benchmarks.views import NO_CLASS, dense_classes, dense_values
from fourfold.metrics.dense import unit_normals
from fourfold.metrics.depth import DepthProtocol, DepthScorer
from fourfold.metrics.normals import NormalScorer
from fourfold.metrics.running import Score
from fourfold.metrics.segmentation import IGNORED, SegmentationScorer
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import write_bytes


class DepthMeasure(Measure):
    """Metric depth in meters; the truth of an example is (H, W) meters, 0 where unknown."""

    def __init__(self, run: Run, protocol: DepthProtocol, scale: float) -> None:
        """Start without examples.

        Args:
            run: the model and the settings, which may replace crop and alignment.
            protocol: of the benchmark.
            scale: of result files, units per meter: 16-bit PNG as the benchmark stores its truth.
        """
        super().__init__(run)
        chosen = {name: getattr(run.config, name) for name in ("crop", "alignment", "max_depth")}
        values = vars(protocol) | {name: value for name, value in chosen.items() if value is not None}
        self.protocol, self._scale = DepthProtocol(**values), scale
        self._scorer = DepthScorer(self.protocol, run.bootstrap)

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return depth (H, W) in meters, NaN where the view does not reach."""

        def predict(rgb: np.ndarray) -> np.ndarray:
            return np.asarray(self.run.model.predict({"rgb": rgb}, ["depth"], seed=self.run.seed)["depth"])

        return [value[..., 0] for value in dense_values(self.run.view, [e.rgb for e in examples], predict)]

    def add(self, example: Example, answer: Any) -> float | None:
        """Return AbsRel of the image; None if no pixel counts."""
        covered = np.isfinite(answer)
        errors = self._scorer.add(answer, np.where(covered, example.truth, 0))
        return None if errors is None else errors["abs_rel"]

    def scores(self) -> dict[str, Score]:
        """Return the mean errors over images."""
        return self._scorer.scores()

    def details(self) -> dict[str, Any]:
        """Return the protocol as it was used, and how many images had no pixel that counts."""
        return {"depth_protocol": self.protocol.describe(), "images_without_pixels": self._scorer.left_out}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Write a 16-bit PNG, 0 where there is no answer."""
        units = np.clip(np.nan_to_num(answer, nan=0) * self._scale, 0, 65535).round().astype(np.uint16)
        write_bytes(folder / f"{example.key.replace('/', '_')}.png", images.png(Image.fromarray(units)))

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the answer and the truth."""
        known = example.truth[example.truth > 0]
        limits = (float(known.min()), max(float(known.max()), float(known.min()) * 1.01)) if len(known) else (1.0, 10.0)
        shown = images.depth_image(np.nan_to_num(answer, nan=limits[1]), *limits)
        truth = np.where((example.truth > 0)[..., None], images.depth_image(example.truth, *limits), 0).astype(np.uint8)
        return [("image", example.rgb), ("prediction", shown), ("truth", truth)]


class NormalMeasure(Measure):
    """Surface normals; the truth is unit vectors (H, W, 3), zero where unknown, x right, y down, z into the scene."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._scorer = NormalScorer(run.bootstrap)

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return vectors (H, W, 3), NaN where the view does not reach."""

        def predict(rgb: np.ndarray) -> np.ndarray:
            return unit_normals(np.asarray(self.run.model.predict({"rgb": rgb}, ["normal"], seed=self.run.seed)["normal"]))

        return dense_values(self.run.view, [e.rgb for e in examples], predict, mirror=lambda values: values * (-1, 1, 1))

    def add(self, example: Example, answer: Any) -> float | None:
        """Return the mean angle of the image."""
        signs = np.array(self.run.config.normal_signs, float)
        valid = np.isfinite(answer[..., 0]) & (np.abs(example.truth).sum(axis=-1) > 0)
        return self._scorer.add(np.nan_to_num(answer), example.truth * signs, valid)

    def scores(self) -> dict[str, Score]:
        """Return angles in degrees and shares of pixels."""
        return self._scorer.scores()

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the answer and the truth."""
        signs = np.array(self.run.config.normal_signs, float)
        shown = [("prediction", np.nan_to_num(answer)), ("truth", example.truth * signs)]
        return [("image", example.rgb), *((title, images.normal_image(value)) for title, value in shown)]


class SegmentationMeasure(Measure):
    """Semantic segmentation; the truth is class ids (H, W), 255 where ignored."""

    def __init__(self, run: Run, table: ClassTable, official_ids: np.ndarray | None = None) -> None:
        """Start without examples.

        Args:
            run: the model and the settings.
            table: the classes of the benchmark.
            official_ids: what result files contain for each class, uint8 (C,); None: the ids themselves.

        Raises:
            ValueError: the model and the benchmark have no class in common.
        """
        super().__init__(run)
        self.table, self._official_ids = table, official_ids
        self._scorer = SegmentationScorer(table.num_classes, run.bootstrap)

    @cached_property
    def lut_256(self) -> np.ndarray:
        """From the model's class ids to those of the benchmark, by their names."""
        return class_lut(self.run.class_table, self.table, self.run.config.class_names)

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return class ids uint8 (H, W), 255 where there is none."""

        def predict(rgb: np.ndarray) -> np.ndarray:
            return np.asarray(self.run.model.predict({"rgb": rgb}, ["semseg"], seed=self.run.seed)["semseg"])

        return dense_classes(self.run.view, [e.rgb for e in examples], predict, self.lut_256, self.table.num_classes)

    def add(self, example: Example, answer: Any) -> float | None:
        """Return the share of wrong pixels of the image."""
        truth = np.asarray(example.truth)
        if self.run.view.name == "crop":  # the rest of the image has no answer
            (top, left, h, w), *_ = self.run.view.boxes(*truth.shape)
            truth, answer = truth[top : top + h, left : left + w], answer[top : top + h, left : left + w]
        counted = truth != IGNORED
        if not counted.any():
            return None
        self._scorer.add(answer, truth)
        return float((answer != truth)[counted].mean())

    def scores(self) -> dict[str, Score]:
        """Return `miou`, `mean_accuracy` and `pixel_accuracy`."""
        return self._scorer.scores()

    def details(self) -> dict[str, Any]:
        """Return the IoU of each class, None for one that occurs nowhere, and the classes that the model cannot name."""
        each = self._scorer.iou_of_classes()
        named = set(self.lut_256.tolist())
        iou = {name: (round(float(v), 6) if np.isfinite(v) else None) for name, v in zip(self.table.names, each, strict=True)}
        return {"iou": iou, "not_in_the_model": [name for i, name in enumerate(self.table.names) if i not in named]}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Write a PNG of class ids, in the ids that the benchmark's server takes."""
        ids = (
            answer
            if self._official_ids is None
            else np.append(self._official_ids, 0)[np.minimum(answer, len(self._official_ids))]
        )
        write_bytes(folder / f"{Path(example.key).name}.png", images.png(Image.fromarray(ids.astype(np.uint8))))

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the answer and the truth."""
        shown = [("prediction", answer), ("truth", example.truth)]
        return [("image", example.rgb), *((title, images.class_image(np.asarray(ids), self.table)) for title, ids in shown)]


def class_lut(mine: ClassTable | None, official: ClassTable, renamed: Mapping[str, str]) -> np.ndarray:
    """Return, for each of the model's class ids, the id of the benchmark with the same name, uint8 (256,); 255: none.

    Names are compared without case, spaces, hyphens and underscores.

    Args:
        mine: of the model; None: its ids are those of the benchmark.
        official: of the benchmark.
        renamed: names of the model's classes → names of the benchmark, where they differ.

    Raises:
        ValueError: no name is in both, or a name in `renamed` is unknown.
    """
    lut = np.full(256, NO_CLASS, np.uint8)
    if mine is None:
        lut[: official.num_classes] = np.arange(official.num_classes)
        return lut
    known = {plain(name): index for index, name in enumerate(official.names)}
    for name, other in renamed.items():
        mine.id_of(name)
        official.id_of(other)
    for index, name in enumerate(mine.names):
        lut[index] = known.get(plain(renamed.get(name, name)), NO_CLASS)
    if (lut == NO_CLASS).all():
        examples = [", ".join(table.names[:5]) for table in (mine, official)]
        raise ValueError(
            f"The model's classes ({examples[0]}, ...) and those of the benchmark ({examples[1]}, ...) have no name in common. "
            "Give class_names: {model's name: benchmark's name}."
        )
    return lut


def plain(name: str) -> str:
    """Return a class name without case, spaces, hyphens and underscores, for comparisons."""
    return "".join(letter for letter in name.lower() if letter not in " -_")
