"""Trainings that do not depend on each other: on a CPU, several at once, each in a process with one thread."""

from collections.abc import Callable, Sequence

from fourfold.local_workers import run_logged
from fourfold.metric_log import MetricLog
from fourfold.training.precision import default_device
from fourfold.training.run_context import RunContext


def train_each(train: Callable[[str, MetricLog], None], names: Sequence[str], context: RunContext) -> None:
    """Call `train(name, log)` for every name; each call trains one model and saves it.

    On a CPU the calls run in forked processes (`fourfold.local_workers`), so they must leave their results on disk. On a GPU,
    or in one of several processes that train together, they run here, one after the other.

    Args:
        train: the training; it logs to the log that it is given.
        names: the models.
        context: of the stage; its log receives what every training logs, while it runs.
    """
    if context.processes.size > 1 or default_device().type != "cpu":
        for name in names:
            train(name, context.log)
        return
    for _ in run_logged(train, names, context.log):
        pass
