"""What `/metrics` shows, in the format of Prometheus."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: Any = {"registry": self._registry, "namespace": "kedro_serve"}
        self.requests = Counter("requests", "Answered requests", ["route", "status"], **own)
        self.seconds = Histogram("request_seconds", "From the request to its answer", ["route"], buckets=SECONDS, **own)
        self.batch_size = Histogram("batch_size", "Requests that were answered at once", buckets=SIZES, **own)
        self.queue = Gauge("queue_length", "Requests that wait for the model", **own)
        self.crashes = Counter("model_crashes", "Times that the process of the model ended by itself", **own)
        self.failed_moves = Counter("failed_moves", "New versions that could not be loaded", **own)
        self._model = Gauge("model_info", "The version in use is 1", ["name", "version"], **own)

    def show_model(self, name: str, number: str) -> None:
        """Set the version in use."""
        self._model.clear()
        self._model.labels(name, number).set(1)

    def text(self) -> bytes:
        """Return the page."""
        return generate_latest(self._registry)
