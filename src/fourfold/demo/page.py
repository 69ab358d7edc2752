"""What the page of `kedro demo` knows: labels, presets, classes and examples. `fourfold_ops.server.demo` serves it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet
from fourfold.demo import values
from fourfold.evaluation.report.definitions import label_title
from fourfold.generation.config import PRESETS
from fourfold.images import ANONYMOUS_CLASSES, DEPTH_COLORS, FAR, NEAR
from fourfold.modalities import LABELS, base_name
from fourfold.modalities.class_table import ClassTable

NUM_EXAMPLES = 8
# First what people look at first; other labels follow in the order of the table.
ORDER = ("rgb", "depth", "normal", "semseg", "det", "caption")
ANYTHING = ("a red sphere", "a photo of a street", "a cup on a table")


class DemoPage:
    """The page and what it shows beside the model."""

    folder = Path(__file__).parent / "page"

    def __init__(
        self, class_table: ClassTable | None = None, samples: Sequence[Mapping[str, Any]] = (), notice: str = ""
    ) -> None:
        """Create the page.

        Args:
            class_table: Names and colors of the classes in segmentations and boxes; None: unknown.
            samples: Examples to start from, each with `rgb` uint8 (H, W, 3) and `caption`.
            notice: What a reader must know before everything else.
        """
        self._classes, self._samples, self._notice = class_table, list(samples), notice

    def about(self) -> dict[str, Any]:
        """Return presets, classes, colors of depth, examples and the notice."""
        classes = self._classes or ANONYMOUS_CLASSES
        return {
            "presets": list(PRESETS),
            "labels": {name: _label(name) for name in sorted(LABELS, key=_position)},
            "classes": [{"name": name, "color": classes.palette[index].tolist()} for index, name in enumerate(classes.names)],
            "named": self._classes is not None,
            "notice": self._notice,
            "depth": {"colors": DEPTH_COLORS(np.arange(256), bytes=True)[:, :3].tolist(), "range": [NEAR, FAR]},
            "examples": [{"rgb": values.view("rgb", sample["rgb"]), "caption": _text(sample)} for sample in self._samples],
            "captions": list(dict.fromkeys(_text(sample) for sample in self._samples)) or list(ANYTHING),
        }

    def describe(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """Return the labels that a model takes and predicts, in the order of the page."""
        return {side: sorted(description[side], key=_position) for side in ("inputs", "outputs")}

    def present(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs of the model as the page shows them."""
        return values.present(outputs)

    def read(self, name: str, content: Any) -> dict[str, Any]:
        """Return an opened file (bytes) or an edited value (JSON) as the page shows it; raises ValueError if it is none."""
        return values.opened(name, content)


def first_samples(shards: ShardSet, split: str) -> list[dict[str, Any]]:
    """Return the first samples of a split, with image and caption."""
    names = [name for name in ("rgb", "caption") if name in shards.modalities(split)]
    shard = next(iter(shards.shard_names(split)), None)
    if "rgb" not in names or shard is None:
        return []
    return list(shards.read(split, names, shard)[:NUM_EXAMPLES])


def _label(name: str) -> dict[str, Any]:
    entry = LABELS[name]
    return {"title": label_title(name), "kind": entry.kind, "extension": entry.extension}


def _position(name: str) -> tuple[int, int]:
    base = base_name(name)
    return (ORDER.index(base) if base in ORDER else len(ORDER)), list(LABELS).index(base)


def _text(sample: Mapping[str, Any]) -> str:
    return str(sample.get("caption", ""))
