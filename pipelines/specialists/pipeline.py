"""Images, labels, trained generalist → trained specialists, and the table that compares them."""

from kedro.pipeline import Node, Pipeline

from pipelines.specialists.nodes import (
    draw_specialists,
    measure_specialists,
    score_specialists,
    train_specialists,
    write_comparison,
)

COMPARED = ["specialist_models", "any_to_any", "teachers"]
DATA = ["shards", "labels", "truth"]


def create_pipeline() -> Pipeline:
    """Return the pipeline; it is no part of the default run."""
    return Pipeline(
        [
            Node(
                train_specialists,
                ["shards", "labels", "any_to_any", "params:specialists", "params:seed", "specialists_folder", "metric_log"],
                "specialist_models",
                tags="gpu",
                name="train_specialists",
            ),
            Node(
                score_specialists,
                [*COMPARED, *DATA, "params:evaluation", "params:seed"],
                "specialist_metrics",
                tags="gpu",
                name="score_specialists",
            ),
            Node(
                measure_specialists,
                [
                    *COMPARED,
                    "shards",
                    "known_tokens",
                    "params:pretraining",
                    "params:seed",
                    "stage_seconds",
                    "specialist_metrics",
                    "metric_log",
                ],
                "specialist_costs",
                tags="gpu",
                name="measure_specialists",
            ),
            Node(draw_specialists, [*COMPARED, *DATA], "specialist_gallery", tags="gpu", name="draw_specialists"),
            Node(
                write_comparison,
                ["specialist_metrics", "specialist_costs", "specialist_gallery"],
                ["specialist_table", "specialist_table_text", "specialist_page", "specialist_chart"],
                name="write_comparison",
            ),
        ],
        tags="specialists",
    )
