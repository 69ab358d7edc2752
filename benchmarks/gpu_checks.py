"""Sections of gpu.py that check numbers: golden vectors, exact resume, compiled blocks, sharding."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from gpu_common import Place, Rows, peak_gib
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from fourfold.data.cursor import Cursor
from fourfold.model.batch import MaskedBatch
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import load_released
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.pretrain import compile_blocks, sharded_blocks
from fourfold.pretraining.step_loss import StepLoss
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.parallel import ParallelModel, shard, whole
from fourfold.training.performance import Meter
from fourfold.training.precision import autocast
from fourfold.training.preemption import Preempted
from fourfold.training.process_group import ProcessGroup
from fourfold.training.run_context import RunContext
from tests.support.golden import REFERENCE, golden_batch

STEPS, STOP_AFTER, BATCH = 6, 3, 8


def parity(place: Place) -> Rows:
    """Compare logits, losses and gradients with the vectors that the 4M code computed, in float32 and in bfloat16."""
    model = load_released(REFERENCE / "fourm_tiny.safetensors").to(place.device)
    with np.load(REFERENCE / "fourm_tiny_io.npz") as file:
        arrays = dict(file)
    batch, found = golden_batch(arrays, "", model), Rows()
    gradients = _gradients(model.cpu(), batch, "fp32")
    model.to(place.device)
    for precision in ("fp32", "bf16"):
        with torch.no_grad(), autocast(precision, place.device):
            moved = batch.to(place.device)
            logits, _ = model.target_logits(model.decode(moved, model.encode(moved)), moved)
            loss = model(moved, loss="reference_modality").total
        differences = {name: logits[name].float().cpu() - torch.tensor(arrays[f"logits/{name}"]) for name in logits}
        norm = sum(float(torch.tensor(arrays[f"logits/{name}"]).square().sum()) for name in logits) ** 0.5
        error = sum(float(one.square().sum()) for one in differences.values()) ** 0.5
        found[f"{precision}/logits_max_error"] = max(float(one.abs().max()) for one in differences.values())
        found[f"{precision}/logits_relative_error"] = error / norm
        found[f"{precision}/loss_error"] = abs(float(loss) - float(arrays["loss_mod/total"]))
        # of the gradients, against those that this machine's CPU computes in float32
        ours = _gradients(model, batch.to(place.device), precision)
        found[f"{precision}/gradients_relative_error"] = _relative_error(ours, gradients)
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def resume(place: Place) -> Rows:
    """Train twice without a break, and once with a SIGTERM in the middle; compare all weights bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = _compared(place, root / "default", "")
        if found["same_bytes_after_resume"] or not place.on_gpu:
            return found
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            return found | _compared(place, root / "deterministic", "deterministic_kernels/")
        finally:
            torch.use_deterministic_algorithms(False)


def compiled_blocks(place: Place) -> Rows:
    """Compile all blocks without graph breaks (`fullgraph`), and compare loss and gradients with those of plain execution."""
    from torch._dynamo.utils import counters

    size = place.sizes[0]
    # at the tiny size one batch and graphs alone, which need no C++ compiler: graphs of any size take ten times as long
    counts = (4,) if place.is_tiny else (4, 6)
    model, batches = place.model(size), [place.batch(size, count).to(place.device) for count in counts]
    plain = [_gradients(model, batch, "bf16") for batch in batches]
    counters.clear()
    compile_blocks(model, "eager" if place.is_tiny else "inductor", dynamic=not place.is_tiny)
    errors = [_relative_error(_gradients(model, batch, "bf16"), found) for batch, found in zip(batches, plain, strict=True)]
    return {
        "graph_breaks": sum(counters["graph_break"].values()),
        "graphs": counters["stats"]["unique_graphs"],
        "bf16/gradients_relative_error": float(f"{max(errors):.3g}"),
    }


def fsdp(place: Place) -> Rows:
    """Shard the model over one process (FSDP2), and compare loss and time of a step with those without sharding."""
    size = place.sizes[0] if place.is_tiny else "B"
    count = BATCH if place.is_tiny else 64
    batch = place.batch(size, count).to(place.device)
    with tempfile.TemporaryDirectory() as folder:
        backend = "cpu:gloo,cuda:nccl" if place.on_gpu else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            plain, times = _update(place, place.model(size), batch)
            model = place.model(size)
            shard(model, sharded_blocks(model))
            sharded, of_sharded = _update(place, model, batch)
        finally:
            dist.destroy_process_group()
    return {
        "loss_relative_error": float(f"{abs(sharded / plain - 1):.3g}"),
        "ms": round(1e3 * of_sharded, 2),
        "ratio_to_unsharded": round(of_sharded / times, 3),
        "peak_gib": peak_gib(place),
    }


def _gradients(model: FourM, batch: MaskedBatch, precision: Any) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    with autocast(precision, model.device):
        loss = model(batch, loss="reference_modality").total
    loss.backward()
    return {name: whole(p.grad).float().cpu() for name, p in model.named_parameters() if p.grad is not None}


def _relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    error = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (error / sum(float(one.square().sum()) for one in expected.values())) ** 0.5


def _compared(place: Place, root: Path, prefix: str) -> Rows:
    runs = {name: _trained(place, root / name, name == "stopped") for name in ("first", "second", "stopped")}
    found: Rows = {}
    for title, name in (("same_bytes_twice", "second"), ("same_bytes_after_resume", "stopped")):
        pairs = [(runs["first"][key], runs[name][key]) for key in runs["first"]]
        found[f"{prefix}{title}"] = int(all(torch.equal(a, b) for a, b in pairs))
        found[f"{prefix}{title}/largest_difference"] = max(float((a - b).abs().max()) for a, b in pairs)
    return found


def _trained(place: Place, folder: Path, is_stopped: bool) -> dict[str, Tensor]:
    """Return the weights after a short training; one that is stopped starts again in the same folder."""
    try:
        return _train(place, folder, STOP_AFTER if is_stopped else None)
    except Preempted:
        return _train(place, folder, None)


def _train(place: Place, folder: Path, stop_after: int | None) -> dict[str, Tensor]:
    size = place.sizes[0]
    model = place.model(size)
    settings = PretrainConfig(batch_size=BATCH, precision="bf16" if place.on_gpu else "fp32")
    meter, pool = Meter(place.device), place.batch(size, BATCH * STEPS)
    loss = StepLoss(ParallelModel(model, ProcessGroup()), model.config, settings, place.device, meter)

    def batches(start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        for index in range(start.offset // BATCH, STEPS):
            if stop_after is not None and index == stop_after - 1:
                os.kill(os.getpid(), signal.SIGTERM)  # the loop finishes this step, saves, and raises Preempted
            yield pool[index * BATCH : (index + 1) * BATCH], Cursor(0, (index + 1) * BATCH)

    optimizer = build_optimizer(model, OptimizerConfig())  # Muon and AdamW
    setup = TrainingSetup(model, loss, batches, optimizer, STEPS, ScheduleConfig())
    train(setup, LoopConfig(checkpoint_every=STEPS), RunContext(0, folder), description="benchmark", meter=meter)
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _update(place: Place, model: FourM, batch: MaskedBatch) -> tuple[float, float]:
    """Return the loss of a batch, and the seconds of a step."""
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=1e-6))
    losses: list[float] = []

    def step() -> None:
        with autocast("bf16" if place.on_gpu else "fp32", place.device):
            loss = model(batch).total
        loss.backward()
        optimizer.step(1.0)
        losses.append(float(loss.detach()))

    seconds = place.seconds_of(step)
    return losses[0], seconds
