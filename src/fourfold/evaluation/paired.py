"""Bootstrap replicates for comparing two models on the same test samples.

Replicate r of every metric weights the samples in the same way, whatever the model and the seed of the run: the differences of
two models' replicates are those of a paired bootstrap (Efron and Tibshirani 1993, chapter 15). Replicates are kept instead of
scores of samples because an mIoU or an AP50 is no mean over samples, and because their size does not grow with the samples.
"""

# N samples, R bootstrap replicates

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fourfold.evaluation.comparison import finite
from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext
from fourfold.evaluation.tasks.protocol import ScoringConfig
from fourfold.metrics.metric import find_metric
from fourfold.metrics.statistics import Statistic, value
from fourfold.seeds import numpy_generator

PAIRED_SEED = 0  # not that of the run: runs with different seeds must weight the samples alike
DIGITS = 6  # significant ones of a replicate


class PairedScores:
    """Collects the replicates of a model, and of the trivial answers, for every metric of the scored tasks."""

    def __init__(self, replicates: int, encoder_digest: str = "") -> None:
        """Start without metrics.

        Args:
            replicates: number R of replicates.
            encoder_digest: of the text encoder, which some metrics depend on.
        """
        self._replicates, self._encoder_digest = replicates, encoder_digest
        self._digests: dict[int, str] = {}  # of columns, by their identity
        self._weights_RN = np.zeros((0, 0))
        self.samples = 0
        self.metrics: dict[str, dict[str, Any]] = {}

    def add(self, metrics: Mapping[str, Any], num_samples: int) -> None:
        """Add metrics that `measure` returned, about `num_samples` samples."""
        self.samples = num_samples
        self.metrics.update(metrics)

    def measure(
        self, task: PredictionTask, context: TaskContext, columns: Mapping[str, Mapping[str, Statistic]]
    ) -> dict[str, Any]:
        """Return the metrics of one task as JSON values by name.

        Args:
            task: the task.
            context: the scored samples; they must stay alive as long as this object.
            columns: statistics by metric of the model ("value") and of the trivial answer ("trivial"), as `entries` takes.
        """
        found: dict[str, Any] = {}
        data = self._digest_of_data(task, context)
        for name, statistic in columns["value"].items():
            if finite(value(statistic)) is None:
                continue
            trivial = columns.get("trivial", {}).get(name)
            found[f"{task.pair}/{name}"] = {
                "value": finite(value(statistic)),
                "baseline": None if trivial is None else finite(value(trivial)),
                "lower_is_better": find_metric(task.metrics, name).lower_is_better,
                "data": data,
                "replicates": self._replicates_of(statistic),
                "baseline_replicates": None if trivial is None else self._replicates_of(trivial),
            }
        return found

    def evidence(self, model_digest: str) -> dict[str, Any]:
        """Return all metrics as a JSON value; `subject` is the digest of the model that they are about."""
        return {"subject": model_digest, "samples": self.samples, "metrics": self.metrics}

    def _replicates_of(self, statistic: Statistic) -> list[float | None]:
        count = statistic.num_samples
        if self._weights_RN.shape[1] != count:
            rng = numpy_generator(PAIRED_SEED, "paired_bootstrap")
            uniform = np.full(count, 1 / count)
            self._weights_RN = rng.multinomial(count, uniform, size=self._replicates).astype(np.float64)
        values_R = statistic.weighted(self._weights_RN)
        return [float(f"{number:.{DIGITS}g}") if np.isfinite(number) else None for number in values_R]

    def _digest_of_data(self, task: PredictionTask, context: TaskContext) -> str:
        """Return a SHA-256 over all that the metrics of a task depend on beside the model: inputs, truth and settings."""
        samples = context.samples
        settings = {name: getattr(context.config, name) for name in ScoringConfig.model_fields}
        parts = {"task": task.name, "settings": settings, "keys": samples.keys, "choices": samples.choices}
        parts |= {name: self._digest_of_column(column) for name, column in _columns(task, samples).items()}
        if samples.class_table is not None:
            parts["class_table"] = samples.class_table.model_dump(mode="json")
        if context.relative_depth and task.target == "depth":
            parts["depth"] = "relative"  # not comparable with errors in meters
        if task.needs_encoder:
            parts["encoder"] = self._encoder_digest
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _digest_of_column(self, column: Any) -> str:
        if id(column) not in self._digests:
            digest = hashlib.sha256()
            _update(digest, column)
            self._digests[id(column)] = digest.hexdigest()
        return self._digests[id(column)]


def _columns(task: PredictionTask, samples: Samples) -> dict[str, Any]:
    """Return the input of a task and everything that its answers are compared with."""
    inputs = {"rgb": samples.rgb, "caption": samples.captions}
    read = {*task.truth, *task.exact_truth, "semseg"}  # segmentation: it tells which pixels count
    found = {f"truth/{name}": samples.truth[name] for name in sorted(read) if name in samples.truth}
    found |= {f"labels/{name}": samples.labels[name] for name in task.labels if name in samples.labels}
    return found | {"input": inputs[task.source]}


def _update(digest: Any, item: Any) -> None:
    """Add a value to a digest: an array, text, or lists and dictionaries of these."""
    if isinstance(item, np.ndarray | np.generic):
        array = np.ascontiguousarray(item)
        digest.update(f"array {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    elif isinstance(item, list | tuple):
        digest.update(f"list {len(item)} ".encode())
        for element in item:
            _update(digest, element)
    elif isinstance(item, dict):
        digest.update(f"dict {len(item)} ".encode())
        for key in sorted(item, key=str):
            _update(digest, str(key))
            _update(digest, item[key])
    else:
        digest.update(f"{json.dumps(item)} ".encode())
