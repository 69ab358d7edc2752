"""Replicas share a step: the sum of the parts' gradients, Muon's updates, and the end of their processes."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from fourfold.local_workers import WorkerDiedError
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.replicas import ReplicatedOptimizer, replicas_of

MATRICES = {"body.0.weight": 1, "body.2.weight": 2, "body.4.weight": 1}
pytestmark = pytest.mark.numeric


class Regression(nn.Module):
    """A network with a layer that no sample uses, and one that only some use, as modalities may be absent from a part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 8))
        self.unused, self.rare = nn.Linear(4, 4), nn.Parameter(torch.ones(8))

    def part_loss(self, part: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs = torch.from_numpy(part)
        outputs, chosen = self.body(inputs), inputs[:, 0] > 1
        loss = (outputs - inputs.flip(1)).square().sum()
        if chosen.any():
            loss = loss + (outputs[chosen] * self.rare).square().sum()
        return loss, {"first": outputs.detach()[:, 0].sum()}


def parts_of(step: int, count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(step).normal(size=(count, 6, 8)).astype(np.float32))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_gradients_and_metrics_are_those_of_accumulation(count):
    alone, shared = Regression(), Regression()
    parts = parts_of(0, count)
    metrics = {"loss": 0.0, "first": 0.0}
    for part in parts:
        loss, found = alone.part_loss(part)
        loss.backward()
        metrics = {"loss": metrics["loss"] + loss.item(), "first": metrics["first"] + found["first"].item()}
    with replicas_of(shared, build_optimizer(shared, OptimizerConfig(), MATRICES), shared.part_loss, count) as replicas:
        sums = replicas.backward(parts)
        for name, parameter in alone.named_parameters():
            gradient = shared.get_parameter(name).grad
            assert (gradient is None) == (parameter.grad is None), name
            if gradient is not None:
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-5, msg=name)
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(metrics, rel=1e-6)


def trained(count: int, num_steps: int = 6) -> Regression:
    model = Regression()
    optimizer = build_optimizer(model, OptimizerConfig(muon_weight_decay=0.1), MATRICES)
    with replicas_of(model, optimizer, model.part_loss, count) as replicas:
        for step in range(num_steps):
            if replicas is None:
                for part in parts_of(step, 4):
                    model.part_loss(part)[0].backward()
                optimizer.step(0.5)
            else:
                replicas.backward([np.concatenate(rows) for rows in np.array_split(parts_of(step, 4), count)])
                ReplicatedOptimizer(optimizer, replicas).step(0.5)
    return model


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_train_like_one_process(count):
    alone, shared = trained(1), trained(count)
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(shared.get_parameter(name), parameter, rtol=1e-4, atol=1e-5, msg=name)


def test_two_runs_have_the_same_bytes_and_leave_ordinary_parameters():
    one, other = trained(3), trained(3)
    assert all(torch.equal(p, other.get_parameter(name)) for name, p in one.named_parameters())
    clone = copy.deepcopy(one)
    with torch.no_grad():
        clone.rare.add_(1)
    assert not torch.equal(clone.rare, one.rare)


def test_a_killed_replica_ends_the_step_with_an_error():
    model = Regression()

    def loss(part):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return model.part_loss(part)

    parent = os.getpid()
    with (
        pytest.raises(WorkerDiedError, match="status -9"),
        replicas_of(model, build_optimizer(model, OptimizerConfig(), MATRICES), loss, 2) as replicas,
    ):
        replicas.backward(parts_of(0, 2))
