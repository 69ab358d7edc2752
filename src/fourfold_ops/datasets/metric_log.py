"""The run's record of figures, handed to a node as an input, so that the node itself knows no tracking server."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.tracking.active import ActiveRun, active_run


class MetricLogDataset(AbstractDataset[None, ActiveRun]):
    """Load gives an object with `log_metrics(metrics, step)` and `log_figure(figure, name)` of the stage that is running.

    Without tracking (a notebook, a test) it reports nowhere.
    """

    _EPHEMERAL = True

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> ActiveRun:
        """Return the log of the stage that is running."""
        return active_run()

    def save(self, data: None) -> None:
        """Refuse: it is an input."""
        raise DatasetError("A metric log is an input only: call its log_metrics.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
