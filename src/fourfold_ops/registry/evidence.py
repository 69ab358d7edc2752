"""What a promotion is judged by: metrics of one model version with their bootstrap replicates."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fourfold_ops.errors import UserError

ARTIFACT = "promotion/evidence.json"  # of the run that registered or confirmed the version


class _Evidence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricEvidence(_Evidence):
    """One metric of a model, and of a trivial answer on the same samples.

    Replicate r of all models weights the samples alike, if `data` is equal. None: undefined under these weights.
    """

    value: float
    baseline: float | None = None  # of the trivial answer; None without one
    lower_is_better: bool
    data: str  # digest of all that the metric depends on beside the model
    replicates: tuple[float | None, ...]
    baseline_replicates: tuple[float | None, ...] | None = None


class Evidence(_Evidence):
    """All metrics of one evaluation."""

    subject: str  # digest of the evaluated model, as the evaluation names it
    digest: str = ""  # of the files that were registered
    samples: int
    metrics: dict[str, MetricEvidence]


def parse_evidence(values: Any, where: str) -> Evidence:
    """Return the evidence in a JSON value; raises UserError that names `where` if it has another form."""
    try:
        return Evidence.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{where} is no evidence for a promotion ({place}: {first['msg']}).",
            "Run the evaluation again, which writes it.",
        ) from error


def load_evidence(client: Any, run_id: str) -> Evidence | None:
    """Return the evidence that a run has; None without any."""
    import tempfile
    from pathlib import Path

    folder = ARTIFACT.rpartition("/")[0]
    if ARTIFACT not in [item.path for item in client.list_artifacts(run_id, folder)]:
        return None
    with tempfile.TemporaryDirectory() as target:
        text = Path(client.download_artifacts(run_id, ARTIFACT, target)).read_text(encoding="utf-8")
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    return parse_evidence(values, f"{ARTIFACT} of run {run_id}")
