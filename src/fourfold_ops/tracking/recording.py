"""What is written into a run of MLflow beside figures: parameters, and which data were read and written."""

import json
from typing import Any

from fourfold_ops.tracking.active import ActiveRun, metric_name
from fourfold_ops.tracking.provenance import flat

PARAMETERS_PER_BATCH = 100  # MLflow's limit
DIGEST_LENGTH = 36  # MLflow's limit


def log_parameters(run: ActiveRun, parameters: dict[str, Any]) -> None:
    """Log every leaf under its dotted name, e.g. `pretraining.model.dim`, as JSON so that its type is kept."""
    from mlflow.entities import Param

    params = [Param(metric_name(key), json.dumps(value, default=str)) for key, value in flat(parameters).items()]
    for start in range(0, len(params), PARAMETERS_PER_BATCH):
        run.client.log_batch(run.run_id, params=params[start : start + PARAMETERS_PER_BATCH])


def log_data(run: ActiveRun, dataset_name: str, data: Any, entry: Any, context: str) -> bool:
    """Log a data set that has a digest (its own, or its catalog entry's) as "input" or "output"; return whether it has one."""
    source: Any = data if hasattr(data, "digest") else entry
    if not hasattr(source, "digest"):
        return False
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = json.dumps({"place": str(next(iter(entry._describe().values()), ""))})
    dataset = Dataset(dataset_name, str(source.digest())[:DIGEST_LENGTH], type(entry).__name__, place)
    run.client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
    return True
