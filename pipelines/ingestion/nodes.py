"""Node of ingestion."""

from pathlib import Path

from fourfold.data.ingestion.ingest import IngestionConfig, ingest, open_truth
from fourfold.data.shards import ShardSet


def ingest_images(ingestion: IngestionConfig, seed: int, raw_folder: Path) -> tuple[ShardSet, ShardSet]:
    """Read or render the source, clean it, split it and shard it; write exact labels where the source has them."""
    shards = ingest(ingestion, seed, raw_folder)
    return shards, open_truth(raw_folder)
