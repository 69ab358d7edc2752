"""Train tokenizers with one process and with two, unbroken, killed and preempted: `python tiny_ranks.py <world> <folder>`.

The world is that of conftest.py: `shards` and `labels`. Each run leaves its tokenizers and `losses.json` in a folder.
"""

import os
import signal
import sys
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # this and what follows: once for all processes
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # noqa: F401

from fourfold.data.shards import ShardSet
from fourfold.source_code import module_digests
from fourfold.storage import write_json
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig, VisualTokenizerConfig
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.training import diffusion, vqvae
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.config import LoopConfig
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.preemption import EXIT_PREEMPTED
from fourfold.training.run_context import RunContext

sys.path.append(str(Path(__file__).parents[2] / "training"))
import processes

SIZE = {"codebook_size": 16, "latent_width": 4, "width": 16, "fine_width": 8}
# a batch that two cannot halve; codes that die within two steps
VISUAL = VisualTokenizerConfig(
    **SIZE, unquantized_steps=3, steps=9, decoder_steps=3, batch_size=9, codebook_decay=0.5, checkpoint_every=4
)
VECTOR = VectorMlpConfig(num_blocks=1, width=16, expansion=2)
ADAMW = OptimizerConfig(kind="adamw")
GLOBAL = VisualTokenizerConfig(
    **SIZE, vector=VECTOR, optimizer=ADAMW, unquantized_steps=0, steps=6, decoder_steps=3, batch_size=9
)
UNET = UNetConfig(width=16, multipliers=(1, 2), blocks_per_level=1, attention_at=(2,), num_groups=4)
DIFFUSION = DiffusionDecoderConfig(
    unet=UNET, steps=6, batch_size=7, average_decay=0.5, num_decoding_steps=3, checkpoint_every=3
)
CONFIG = TokenizersConfig(
    grid=(4, 4),
    visual=dict.fromkeys(("rgb", "semseg", "clip"), VISUAL) | {"clip_global": GLOBAL},
    diffusion={"rgb": DIFFUSION},
    batch_size=5,
)


class Losses:
    """A metric log that keeps its metrics in memory."""

    def __init__(self):
        self.figures = defaultdict(dict)

    def log_metrics(self, metrics, step=None):
        for name, figure in metrics.items():
            if "performance" not in name:
                self.figures[name][step] = figure


def run(world: Path, folder: Path, stop: tuple[str, int, int] | None) -> None:
    """Train; `stop` is (description, step, signal): this process receives the signal before that step of that training."""
    torch.set_num_threads(1)
    for module in (vqvae, diffusion):
        module.LoopConfig = partial(LoopConfig, log_every=1)
        module.train = partial(_interrupted, module.train, stop)
    log = Losses()
    train_tokenizers(ShardSet(world / "shards"), ShardSet(world / "labels"), CONFIG, RunContext(0, folder, log))
    if os.environ["RANK"] == "0":  # the log of the other processes stays empty
        write_json(folder.with_suffix(".json"), log.figures)


def _interrupted(train, stop, setup, config, context, description):
    def compute_loss(batch, step):
        if stop and (description, step) == stop[:2]:
            os.kill(os.getpid(), stop[2])
        return setup.compute_loss(batch, step)

    return train(replace(setup, compute_loss=compute_loss), config, context, description=description)


def launch(size: int, world: Path, folder: Path, stop: tuple[str, int, int] | None = None) -> list[int]:
    """Run in `size` processes and stop the last one; return the exit code of each."""
    return processes.launch(size, folder, lambda rank: run(world, folder, stop if rank == size - 1 else None))


def main(world: Path, root: Path) -> None:
    module_digests([train_tokenizers.__module__])  # once for all processes, each would take half a second
    assert launch(1, world, root / "alone") == [0]
    assert launch(2, world, root / "together") == [0, 0]
    assert launch(2, world, root / "resumed", ("semseg tokenizer", 6, signal.SIGKILL))[1] == -signal.SIGKILL
    assert launch(2, world, root / "resumed", ("rgb diffusion decoder", 4, signal.SIGTERM)) == [EXIT_PREEMPTED] * 2
    assert launch(2, world, root / "resumed") == [0, 0]
    assert launch(2, world, root / "moved", ("clip tokenizer", 7, signal.SIGTERM)) == [EXIT_PREEMPTED] * 2
    assert launch(1, world, root / "moved") == [0]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
