"""What a whole run must have left: a report, metrics, a registered model, a finished record and a clean `dvc status`."""

import json
import sys
from pathlib import Path

import mlflow

from fourfold_ops.versioning.repository import status

ROOT = Path(__file__).resolve().parents[1]


def problems() -> list[str]:
    """Return what is missing or wrong, in words."""
    found = []
    report, metrics = ROOT / "data/05_reports/report.html", ROOT / "data/05_reports/metrics.json"
    if not report.is_file() or "<img" not in report.read_text(encoding="utf-8"):
        found.append(f"{report.relative_to(ROOT)} is missing or shows no picture")
    copy = ROOT / "data/report.html"
    if not copy.is_file() or "candidate" not in copy.read_text(encoding="utf-8"):
        found.append(f"{copy.relative_to(ROOT)} is missing or names no run")
    if not metrics.is_file() or not json.loads(metrics.read_text(encoding="utf-8")):
        found.append(f"{metrics.relative_to(ROOT)} is missing or empty")
    client = mlflow.MlflowClient(f"sqlite:///{ROOT / 'data/mlflow.db'}")
    models = client.search_registered_models()
    if not models or any(set(model.aliases) != {"candidate"} for model in models):
        found.append(f"a run must leave the alias candidate, and no champion: {[(m.name, m.aliases) for m in models]}")
    experiment = client.get_experiment_by_name("fourfold").experiment_id
    runs = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
    latest = next((run for run in runs if "mlflow.parentRunId" not in run.data.tags), None)
    if latest is None or latest.info.status != "FINISHED":
        found.append(f"the latest recorded run is {latest.info.status if latest else 'missing'}, not FINISHED")
    if changed := status(ROOT):
        found.append(f"dvc status is not clean: {json.dumps(changed, default=str)}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(f"FAILED: {problem}" for problem in problems()) or 0)
