"""Node of ingestion."""

from pathlib import Path
from typing import Any

from fourfold.data.ingestion.card import all_sources, data_card
from fourfold.data.ingestion.croissant import croissant
from fourfold.data.ingestion.drops import loss_metrics
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report, open_truth
from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.metric_log import MetricLog


def ingest_images(
    ingestion: IngestionConfig,
    seed: int,
    raw_folder: Path,
    log: MetricLog,
    work_split: tuple[int, int],
    shards_at: str | None = None,
) -> tuple[ShardSet, ShardSet, dict[str, Any], str, str]:
    """Read or render the source, clean it, split it and shard it; write exact labels where the source has them.

    Or clean this process's share of the source, which leaves nothing to report.

    Returns:
        Shards, truth, the counts of what was kept and left out, the data card, and the same for programs (Croissant).
    """
    split = WorkSplit(*work_split)
    shards = ingest(ingestion, seed, raw_folder, split, shards_at=shards_at)
    if not split.is_whole:
        return shards, open_truth(raw_folder), {}, "", ""
    report = ingestion_report(raw_folder)
    log.log_metrics(loss_metrics(report))
    described = croissant(ingestion.card, all_sources(ingestion), report, shards)
    return shards, open_truth(raw_folder), report, data_card(ingestion, report), described
