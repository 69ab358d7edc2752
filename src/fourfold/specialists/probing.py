"""What pretraining of the generalist takes, measured like the trainings of specialists: in this run, on one core.

A few steps of a fresh model on the real tokens tell the time of a step and the memory; the number of steps is that of the
settings. Nothing of the trained model changes.
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.local_workers import one_thread
from fourfold.metric_log import NullMetricLog
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.pretrain import pretrain
from fourfold.specialists.measuring import MemoryMeter, StepClock
from fourfold.training.run_context import RunContext

logger = logging.getLogger(__name__)
STEPS = 6  # the first one is not counted
NEVER = 10**9  # steps


def probe_pretraining(
    any_to_any: AnyToAny, tokens: ShardSet | None, shards: ShardSet, config: PretrainConfig, seed: int
) -> dict[str, Any] | None:
    """Return `seconds` of one core for the whole pretraining, `steps`, `samples` and `peak_megabytes`.

    Args:
        any_to_any: the generalist, whose tokenizers made the tokens.
        tokens: the token shards; None if there are none, e.g. because the model was imported.
        shards: the images.
        config: of pretraining.
        seed: of the run.

    Returns:
        None where it cannot be measured: no tokens, or settings of another model than this one.
    """
    if reason := _obstacle(any_to_any, tokens, config):
        logger.info("The cost of pretraining is not measured: %s.", reason)
        return None
    assert tokens is not None
    clock, memory = StepClock(), MemoryMeter()
    with one_thread(), TemporaryDirectory() as folder:
        context = RunContext(seed, Path(folder) / "probe", _MarkingLog(clock))
        pretrain(tokens, shards, any_to_any.tokenizers, shortened(config), context)
    rate = clock.seconds_per_step()
    return {
        "steps": config.num_steps,
        "samples": config.num_steps * config.batch_size,
        "seconds": None if rate is None else round(rate * config.num_steps, 3),
        "peak_megabytes": round(memory.peak_megabytes(), 1),
    }


def shortened(config: PretrainConfig) -> PretrainConfig:
    """Return the settings of a pretraining with the same steps, but only `STEPS` of them, in one process."""
    loop = {"log_every": 1, "validate_every": NEVER, "checkpoint_every": NEVER, "checkpoint_seconds": None}
    return config.model_copy(
        update={
            "total_tokens": STEPS * config.batch_size * config.tokens_per_sample,
            "warmup_tokens": 0,
            "start_from": None,
            "validation_samples": 1,
            "loop": config.loop.model_copy(update=loop),
            "compute": config.compute.model_copy(update={"replicas": 1, "profile_steps": 0}),
        }
    )


def _obstacle(any_to_any: AnyToAny, tokens: ShardSet | None, config: PretrainConfig) -> str:
    if any_to_any.provenance is not None or tokens is None:
        return "the model was trained elsewhere, or its tokens are gone"
    differences = [key for key, value in config.model if getattr(any_to_any.model.config, key) != value]
    return f"the settings have another {', '.join(differences)} than the model" if differences else ""


class _MarkingLog(NullMetricLog):
    """Marks the steps of a training on a clock; everything else is discarded."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Mark the step, once for all metrics of the loop."""
        if step is not None and "loss" in metrics:
            self.clock.mark(step)
