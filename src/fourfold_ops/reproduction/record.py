"""Records a reproduction in MLflow, as a child of the run that was reproduced."""

import logging
from collections.abc import Iterable
from pathlib import Path

from fourfold_ops.reproduction.comparison import Comparison
from fourfold_ops.reproduction.recorded_run import LATEST, PARENT, REPRODUCES, VERDICT
from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import ActiveRun
from fourfold_ops.tracking.store import TrackingStore

logger = logging.getLogger(__name__)
FOLDER = "reproduction"  # of the artifacts


def record(
    store: TrackingStore, comparison: Comparison, facts: dict[str, str], reports: Iterable[Path], is_whole: bool = True
) -> str:
    """Add a child run with the verdict, the reports and every number, and tag the original run with the verdict.

    A part that was reproduced does not make the run a reproduced one; a part that differs refutes it.

    Args:
        store: Where the original run is recorded.
        comparison: The result; it has the id of the original run.
        facts: Facts about the machine of the reproduction.
        reports: Files that become artifacts.
        is_whole: Whether every stage of the original was compared.

    Returns:
        The id of the child run.
    """
    client = store.client
    original = client.get_run(comparison.run_id)
    tags = {
        PARENT: comparison.run_id,
        REPRODUCES: comparison.run_id,
        VERDICT: comparison.verdict,
        names.COMMIT: comparison.commit,
        names.COMMAND: comparison.command,
        names.STAGES: ", ".join(comparison.stages),
        **({"reproduction.first_node": comparison.first_node} if comparison.first_node else {}),
        **{f"compute.{name}" if "." in name else name: value for name, value in facts.items()},
    }
    name = f"reproduction: {comparison.verdict}"
    run = ActiveRun(client, client.create_run(original.info.experiment_id, tags=tags, run_name=name).info.run_id)
    values = {metric.name.replace(".", "/"): metric.found for metric in comparison.metrics if metric.difference is not None}
    run.log_metrics({"outputs/same": sum(output.status == "same" for output in comparison.outputs), **values})
    for path in reports:
        run.log_file(path, f"{FOLDER}/{path.name}")
    run.flush()
    client.set_terminated(run.run_id, "FINISHED")
    if is_whole or not comparison.holds:
        client.set_tag(comparison.run_id, VERDICT, comparison.verdict)
        client.set_tag(comparison.run_id, LATEST, run.run_id)
    return run.run_id
