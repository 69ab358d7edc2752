"""Use of CPU, memory, disk, network and GPU over time, under the names that MLflow's page on system metrics shows."""

import logging
import threading
from typing import Any

from fourfold_ops.tracking.run import ActiveRun

logger = logging.getLogger(__name__)
SECONDS = 10.0  # between two samples; a sample costs a few milliseconds
PREFIX = "system/"


class SystemMetrics:
    """Samples the machine in a thread, into one run at a time.

    Steps shorter than `SECONDS` have no sample. The thread has its own buffer of metrics, and a failure ends only the sampling.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._run_id = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, run: ActiveRun) -> None:
        """Sample into `run` from now on; the same run again changes nothing."""
        if run.client is None or run.run_id == self._run_id:
            return
        self.end()
        self._run_id, self._stop = run.run_id, threading.Event()
        own = ActiveRun(run.client, run.run_id)
        self._thread = threading.Thread(target=self._sample, args=(own, self._stop), name="system metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop sampling and send what was sampled."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._thread, self._run_id = None, ""

    def _sample(self, run: ActiveRun, stop: threading.Event) -> None:
        try:
            monitors, step = _monitors(), 0
            while not stop.wait(self._seconds):
                for monitor in monitors:
                    monitor.collect_metrics()
                    values = monitor.aggregate_metrics()
                    run.log_metrics({f"{PREFIX}{name}": value for name, value in values.items()}, step=step)
                    monitor.clear_metrics()
                step += 1
            run.try_to_flush()
        except Exception:  # the run does not depend on it
            logger.debug("Sampling the machine failed.", exc_info=True)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except Exception:  # no GPU, or not the package that reads it
        logger.debug("The GPU is not sampled.", exc_info=True)
    return monitors
