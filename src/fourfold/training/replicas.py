"""Processes with one thread each that share every training step of a small model on a CPU.

Threads inside operations hardly help a small model: with two of them a step of the default takes nearly nine tenths of the time
that it takes with one, and other programs on the machine stop both. Here each process computes the loss and the gradient of
its part of the batch, and orthogonalizes its share of the matrices (Muon). Weights, momenta and gradients are in memory that
all of them see, so nothing is copied between them but the batch. Sums are in a fixed order: a run ends with the same bytes
however the processes are scheduled.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.local_workers import Emit, Worker, can_fork, one_thread
from fourfold.training.optimizers import Muon, OptimizerSet

PartLoss = Callable[[Any], tuple[Tensor, dict[str, Tensor]]]  # part of a batch → term of the loss, metrics that add up
ALIGNMENT = 16  # numbers: a cache line of float32
MAX_PARAMETERS = 2e7  # in larger models the matrix products are large enough for several threads
MIN_SAMPLES = 4  # of a part; below, overhead dominates


def number_of_replicas(model: nn.Module, device: torch.device, batch_size: int, wanted: int | None = None) -> int:
    """Return how many processes share a step here: `wanted` if it is given; 1 where forking is impossible.

    Without `wanted`, it is 1 as well where threads inside operations are the better choice.
    """
    if device.type != "cpu" or not can_fork():
        return 1
    if wanted is not None:
        return wanted
    if sum(p.numel() for p in model.parameters()) > MAX_PARAMETERS:
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // MIN_SAMPLES))


class Replicas:
    """The processes of one training: this one and `count` − 1 workers, forked when the first step is computed.

    Args:
        model: the model, with float32 parameters; they move to shared memory until `close`.
        optimizer: its optimizer; the momenta of Muon move as well.
        part_loss: returns the loss of a part of a batch. Parts must be pickled without tensors (as NumPy arrays).
        count: number of processes.
    """

    def __init__(self, model: nn.Module, optimizer: OptimizerSet, part_loss: PartLoss, count: int) -> None:
        self.part_loss, self.count = part_loss, count
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.muon = next((rule for rule in optimizer.rules.values() if isinstance(rule, Muon)), None)
        for parameter, shared in zip(self.parameters.values(), _shared_like(self.parameters.values()), strict=True):
            parameter.data = shared.copy_(parameter.data)
        if self.muon:
            momenta = self.muon.state["momentum"]
            for name, shared in zip(momenta, _shared_like(momenta.values()), strict=True):
                momenta[name] = shared.copy_(momenta[name])
        self.gradients = [list(_shared_like(self.parameters.values())) for _ in range(count - 1)]
        self.shares = _shares(self.muon, count)
        self.workers: list[Worker] = []

    def backward(self, parts: Sequence[Any]) -> dict[str, Tensor]:
        """Leave the gradients of a batch in `.grad`, in shared memory, and return the sums of loss and metrics.

        Args:
            parts: `count` parts of the batch.
        """
        # 1) Every process computes its part; this one the first
        self._start()
        for worker, part in zip(self.workers, parts[1:], strict=True):
            worker.send(("part", part))
        with one_thread():
            sums = self._compute(parts[0])
        # 2) Add up gradients and metrics, in the order of the parts
        total, has_total = self.gradients[0], [False] * len(self.parameters)
        for number, worker in enumerate(self.workers):
            metrics, has_gradient = worker.receive()
            sums |= {key: sums.get(key, 0.0) + value for key, value in metrics.items()}
            if number == 0:
                has_total = has_gradient
                continue
            _add(total, has_total, self.gradients[number], has_gradient)
        own = [p.grad for p in self.parameters.values()]
        _add(total, has_total, own, [gradient is not None for gradient in own])
        for parameter, gradient, exists in zip(self.parameters.values(), total, has_total, strict=True):
            parameter.grad = gradient if exists else None
        return {key: torch.as_tensor(value) for key, value in sums.items()}

    def step(self, rule: Muon, lr_multiplier: float) -> None:
        """Update the matrices of Muon, each process its share."""
        present = [{name for name in share if self.parameters[name].grad is not None} for share in self.shares]
        for worker, names in zip(self.workers, present[1:], strict=True):
            worker.send(("step", (names, lr_multiplier)))
        with one_thread():
            rule.step(lr_multiplier, present[0])
        for worker in self.workers:
            worker.receive()

    def close(self) -> None:
        """End the workers and move parameters and momenta to ordinary memory."""
        for worker in self.workers:
            worker.stop()
        self.workers = []
        for parameter in self.parameters.values():
            parameter.data, parameter.grad = parameter.data.clone(), None
        if self.muon:
            self.muon.state["momentum"] = {name: tensor.clone() for name, tensor in self.muon.state["momentum"].items()}

    def _start(self) -> None:
        if not self.workers:
            self.workers = [Worker(self._answer_of(number)) for number in range(self.count - 1)]

    def _answer_of(self, number: int) -> Callable[[tuple[str, Any], Emit], Any]:
        """Return what worker `number` does with a request."""

        def answer(request: tuple[str, Any], emit: Emit) -> Any:
            kind, content = request
            if kind == "part":
                metrics = self._compute(content)
                return metrics, self._hand_over(self.gradients[number])
            names, lr_multiplier = content
            assert self.muon is not None
            # The sum of all gradients, clipped, is where the first worker left its own
            for parameter, gradient in zip(self.parameters.values(), self.gradients[0], strict=True):
                parameter.grad = gradient
            self.muon.step(lr_multiplier, names)
            return None

        return answer

    def _compute(self, part: Any) -> dict[str, float]:
        """Compute the gradient of a part; return loss and metrics."""
        for parameter in self.parameters.values():
            parameter.grad = None
        loss, metrics = self.part_loss(part)
        loss.backward()
        return {name: value.item() for name, value in {"loss": loss, **metrics}.items()}

    def _hand_over(self, gradients: list[Tensor]) -> list[bool]:
        """Copy this process's gradients to shared memory; return which exist."""
        found = [parameter.grad for parameter in self.parameters.values()]
        pairs = [(shared, own) for shared, own in zip(gradients, found, strict=True) if own is not None]
        torch._foreach_copy_([shared for shared, _ in pairs], [own for _, own in pairs])
        return [own is not None for own in found]


class ReplicatedOptimizer(OptimizerSet):
    """An optimizer whose Muon steps on all replicas."""

    def __init__(self, optimizer: OptimizerSet, replicas: Replicas) -> None:
        super().__init__(optimizer.rules)
        self.replicas = replicas

    def step(self, lr_multiplier: float = 1.0) -> None:
        """Update all parameters with `lr_multiplier` times the peak learning rates, then drop the gradients."""
        for rule in self.rules.values():
            if isinstance(rule, Muon):
                self.replicas.step(rule, lr_multiplier)
            else:
                rule.step(lr_multiplier)
        self.zero_grad()


@contextmanager
def replicas_of(model: nn.Module, optimizer: OptimizerSet, part_loss: PartLoss, count: int) -> Iterator[Replicas | None]:
    """Return the replicas of a training inside a block; None if `count` is 1."""
    if count == 1:
        yield None
        return
    replicas = Replicas(model, optimizer, part_loss, count)
    try:
        yield replicas
    finally:
        replicas.close()


def _add(total: list[Tensor], has_total: list[bool], more: Sequence[Tensor | None], has_more: list[bool]) -> None:
    """Add gradients to `total` in place, where they exist, and note in `has_total` that they do."""
    rows = [(i, t, m) for i, (t, m) in enumerate(zip(total, more, strict=True)) if has_more[i] and m is not None]
    first = [(t, m) for i, t, m in rows if not has_total[i]]
    further = [(t, m) for i, t, m in rows if has_total[i]]
    with torch.no_grad():
        if first:
            torch._foreach_copy_([t for t, _ in first], [m for _, m in first])
        if further:
            torch._foreach_add_([t for t, _ in further], [m for _, m in further])
    for i, *_ in rows:
        has_total[i] = True


def _shares(muon: Muon | None, count: int) -> list[set[str]]:
    """Return the names of the matrices that each process updates: products of about equal size."""
    shares: list[set[str]] = [set() for _ in range(count)]
    sizes = [0] * count
    parameters = muon.parameters if muon else {}

    def cost(name: str) -> int:
        parameter = parameters[name]
        return parameter.numel() * min(parameter.shape[0], parameter[0].numel())

    for name in sorted(parameters, key=cost, reverse=True):
        smallest = sizes.index(min(sizes))
        shares[smallest].add(name)
        sizes[smallest] += cost(name)
    return shares


def _shared_like(tensors: Any) -> Iterator[Tensor]:
    """Yield float32 tensors of the same shapes in memory that forked processes share. It needs no file and no descriptor."""
    tensors = list(tensors)
    lengths = [-(-tensor.numel() // ALIGNMENT) * ALIGNMENT for tensor in tensors]
    memory = mmap.mmap(-1, max(4 * sum(lengths), mmap.PAGESIZE))
    whole = torch.frombuffer(memory, dtype=torch.float32)
    for tensor, start in zip(tensors, accumulate(lengths, initial=0), strict=False):
        yield whole[start : start + tensor.numel()].view(tensor.shape)
