"""The interface through which the library reports while it works. The caller implements it, e.g. as an MLflow run."""

from pathlib import Path
from typing import Any, Protocol


class MetricLog(Protocol):
    """Receives metrics, figures and files of a long computation."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics by name, for a training step or, without `step`, for the whole computation."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Record a matplotlib figure as `name` (a relative path that ends in .png)."""

    def log_file(self, path: Path, name: str) -> None:
        """Record the current content of a file as `name` (a relative path), e.g. the trace of a profiler."""


class NullMetricLog:
    """Discards everything: for tests and for use as a library."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Do nothing."""

    def log_file(self, path: Path, name: str) -> None:
        """Do nothing."""
