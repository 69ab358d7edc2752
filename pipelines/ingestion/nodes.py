"""The verb of ingestion: take in."""

from pathlib import Path

from fourfold.data.ingestion.ingest import IngestionConfig, ingest, open_truth
from fourfold.data.shards import ShardSet


def ingest_images(ingestion: IngestionConfig, seed: int, raw_folder: Path) -> tuple[ShardSet, ShardSet]:
    """Render or read the source, clean it, split it and shard it; keep exact truth where there is one."""
    shards = ingest(ingestion, seed, raw_folder)
    return shards, open_truth(raw_folder)
