"""The only way that figures leave the library while it works: a small protocol that the caller implements."""

from pathlib import Path
from typing import Any, Protocol


class MetricLog(Protocol):
    """Where a long step reports to, e.g. an MLflow run."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record named figures, at a step of training or for the whole."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Record a matplotlib figure as `name` (a relative path that ends in .png)."""

    def log_file(self, path: Path, name: str) -> None:
        """Record a file that is there now as `name` (a relative path), e.g. the trace of a profiler."""


class NullMetricLog:
    """Reports nowhere: for tests and for use as a library."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Do nothing."""

    def log_file(self, path: Path, name: str) -> None:
        """Do nothing."""
