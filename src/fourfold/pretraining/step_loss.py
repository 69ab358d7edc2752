"""The loss of a training step: of a whole batch, or of parts of it that different processes or passes compute."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.flops import training_flops
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.copies import CopiedBatch
from fourfold.training.loop import FinishedBackward, PartialLoss
from fourfold.training.parallel import ParallelModel
from fourfold.training.performance import Meter
from fourfold.training.precision import autocast
from fourfold.training.replicas import Replicas

Part = tuple[dict[str, np.ndarray], dict[str, int]]  # the fields of a batch, and the number of targets of the whole step


@dataclass
class StepLoss:
    """Computes the loss of each step.

    Attributes:
        model: the model, on all processes.
        architecture: its configuration.
        config: the settings of the run.
        device: where to compute.
        meter: counts samples, tokens and FLOPs.
        replicas: the processes that share a step on a CPU, if there are any.
    """

    model: ParallelModel
    architecture: ModelConfig
    config: PretrainConfig
    device: torch.device
    meter: Meter
    replicas: Replicas | None = None

    def __call__(self, batch: MaskedBatch | CopiedBatch, step: int) -> PartialLoss | Iterator[PartialLoss] | FinishedBackward:
        """Return the loss of the whole batch, its terms, or what the replicas have computed."""
        host, batch = batch if isinstance(batch, CopiedBatch) else (batch, batch)
        self._count(host)
        if self.replicas:
            totals = self._totals(host)
            parts = micro_batches(host, self.replicas.count)
            return FinishedBackward(self.replicas.backward([_as_arrays(part, totals) for part in parts]))
        processes = self.model.processes
        # all processes must compute equally many micro-batches, so their number follows from the largest share
        largest_share = -(-self.config.batch_size // processes.size)
        num_micro_batches = -(-largest_share // (self.config.compute.micro_batch_size or largest_share))
        if processes.size == 1 and num_micro_batches == 1:
            return self._loss(batch)
        return self._accumulated(batch, self._totals(host), num_micro_batches)

    def of_part(self, part: Part) -> PartialLoss:
        """Return the term of one replica."""
        columns, totals = part
        return self._loss(MaskedBatch(**{name: torch.from_numpy(column) for name, column in columns.items()}), totals)

    def _accumulated(self, batch: MaskedBatch, totals: dict[str, int], count: int) -> Iterator[PartialLoss]:
        for index, micro_batch in enumerate(micro_batches(batch, count)):
            yield self._loss(micro_batch, totals, is_last=index == count - 1)

    def _loss(self, batch: MaskedBatch, totals: dict[str, int] | None = None, is_last: bool = True) -> PartialLoss:
        with autocast(self.config.precision, self.device):
            losses = self.model(batch.to(self.device, non_blocking=True), self.config.loss, totals, is_last=is_last)
        return losses.total, losses.per_modality

    def _totals(self, batch: MaskedBatch) -> dict[str, int]:
        """Return the number of targets of the whole step by modality: parts divide by it, so their losses add up."""
        names = self.architecture.names
        own_counts_E = torch.bincount(batch.target_modality_BM[batch.target_keep_BM], minlength=len(names))
        return dict(zip(names, self.model.processes.sum(own_counts_E.to(self.device)).tolist(), strict=True))

    def _count(self, batch: MaskedBatch) -> None:
        own_tokens = int(batch.input_keep_BN.sum() + batch.target_keep_BM.sum())
        own_counts = {"tokens": own_tokens, "flops": training_flops(self.architecture, batch)}
        # the other processes are estimated: their exact counts would cost a message per step
        of_all = {name: count * self.model.processes.size for name, count in own_counts.items()}
        self.meter.count(samples=self.config.batch_size, **of_all)


def micro_batches(batch: MaskedBatch, count: int) -> Iterator[MaskedBatch]:
    """Yield a batch in `count` parts whose sizes differ by at most one sample.

    A part without samples becomes a sample without targets: processes that exchange gradients must all compute `count`
    parts.
    """
    for index in range(count):
        first, end = (batch.batch_size * border // count for border in (index, index + 1))
        if first < end:
            yield batch[first:end]
        else:
            sample = batch[:1]
            yield replace(sample, target_modality_BM=torch.full_like(sample.target_modality_BM, PADDING_MODALITY))


def _as_arrays(batch: MaskedBatch, totals: dict[str, int]) -> Part:
    columns: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: column.numpy() for name, column in columns.items() if isinstance(column, Tensor)}, totals
