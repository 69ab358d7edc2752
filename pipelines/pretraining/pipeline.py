"""tokens, pixels → any-to-any model."""

from kedro.pipeline import Node, Pipeline

from pipelines.pretraining.nodes import assemble_model, pretrain_model


def create_pipeline() -> Pipeline:
    """Return the stage that trains 4M."""
    return Pipeline(
        [
            Node(
                pretrain_model,
                [
                    "tokens",
                    "shards",
                    "tokenizers",
                    "params:pretraining",
                    "params:seed",
                    "pretraining_folder",
                    "metric_log",
                ],
                ["pretrained", "pretraining_metrics", "pretraining_history"],
                tags=["gpu", "distributed"],
                name="pretrain_model",
            ),
            Node(assemble_model, ["pretrained", "tokenizers", "any_to_any_folder"], "any_to_any", name="assemble_model"),
        ],
        tags="pretraining",
    )
