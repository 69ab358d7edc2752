"""A tiny training run, uninterrupted and killed twice, each in a forked process."""

import os
import signal
import traceback
from pathlib import Path

import torch
from torch import nn

from fourfold.data.cursor import index_batches
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import torch_generator
from fourfold.storage import write_json
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.run_context import RunContext


def main(folder: Path, result: Path, kill_at: int) -> None:
    torch.set_num_threads(1)
    inputs = torch.randn(40, 6, generator=torch_generator(0, "inputs"))
    outputs = torch.randn(40, 3, generator=torch_generator(0, "outputs"))
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(0, "weights")) * 0.3)
    losses = {}

    def compute_loss(indices, step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        noise = torch.randn(len(indices), 6, generator=torch_generator(0, "noise", step)) * 0.1
        loss = (model(inputs[indices] + noise) - outputs[indices]).square().mean()
        losses[step] = loss.item()
        return loss * (float("nan") if step == 5 else 1.0), {"double": 2 * loss}

    config = LoopConfig(
        log_every=4,
        validate_every=5,
        checkpoint_every=3,
        average_decay=0.9,
        keep_checkpoints=2,
        max_skipped_share=0.1,
    )
    claim(folder, fingerprint("fourfold.training.loop"))
    setup = TrainingSetup(
        model,
        compute_loss,
        lambda cursor: index_batches(40, 12, 0, "batches", start=cursor),
        build_optimizer(model, OptimizerConfig(), {"2.weight": 2}),
        num_steps=16,
        schedule=ScheduleConfig(warmup_steps=3),
        validate=lambda: {"loss": (model(inputs) - outputs).square().mean().item()},
    )
    state = train(setup, config, RunContext(0, folder))
    weights = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    write_json(result, {"losses": losses, "state": state.as_json(), "weights": weights})


def run_all(root: Path) -> None:
    """Run in forked processes, which share one import of torch; results are in `unbroken.json` and `broken.json`."""
    run(root, ("unbroken", -1), ("broken", 7), ("broken", 14), ("broken", -1))


def run(root: Path, *runs: tuple[str, int]) -> None:
    """Run one after the other, each in a forked process that is killed in the step (-1: not)."""
    for name, kill_at in runs:
        child = os.fork()
        if not child:
            code = 1
            try:
                main(root / name, root / f"{name}.json", kill_at)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == (0 if kill_at < 0 else signal.SIGKILL), status
