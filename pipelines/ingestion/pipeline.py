"""source → shards, truth, what was left out."""

from kedro.pipeline import Node, Pipeline

from pipelines.ingestion.nodes import ingest_images


def create_pipeline() -> Pipeline:
    """Return the stage that ingests images and captions."""
    return Pipeline(
        [
            Node(
                ingest_images,
                ["params:ingestion", "params:seed", "raw_folder", "metric_log", "work_split", "shards_at"],
                ["shards", "truth", "ingestion_report", "data_card", "croissant"],
                name="ingest_images",
            ),
        ],
        tags="ingestion",
    )
