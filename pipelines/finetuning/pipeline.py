"""Any-to-any model, few labels → transfer results."""

from kedro.pipeline import Node, Pipeline

from pipelines.finetuning.nodes import compare_arms


def create_pipeline() -> Pipeline:
    """Return the stage that fine-tunes on tasks that pretraining never saw."""
    return Pipeline(
        [
            Node(
                compare_arms,
                [
                    "any_to_any",
                    "shards",
                    "truth",
                    "params:finetuning",
                    "params:seed",
                    "finetuning_folder",
                    "metric_log",
                    "known_labels",
                ],
                "transfer_results",
                tags="gpu",
                name="compare_arms",
            ),
        ],
        tags="finetuning",
    )
