"""What tests read from MLflow."""

from typing import Any

from fourfold_ops.tracking.system import PREFIX


def results_of(run: Any) -> dict[str, float]:
    """Return the metrics of a run without those of the machine, which a stage has if it takes long enough to be sampled."""
    return {name: value for name, value in run.data.metrics.items() if not name.startswith(PREFIX)}
