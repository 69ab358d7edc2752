"""shards, labels → tokenizers → tokens, with their quality."""

from kedro.pipeline import Node, Pipeline

from pipelines.tokenizer_training.nodes import (
    measure_all_tokenizers,
    tokenize_shards,
    train_all_tokenizers,
)


def create_pipeline() -> Pipeline:
    """Return the stage that turns labels into tokens."""
    settings = "params:tokenizer_training"
    teaching = ["known_teachers", "params:pseudo_labeling"]  # of labels that are not stored, see pseudo_labeling.keep
    return Pipeline(
        [
            Node(
                train_all_tokenizers,
                ["shards", "labels", *teaching, settings, "params:seed", "tokenizers_folder", "metric_log"],
                "tokenizers",
                tags=["gpu", "distributed"],
                name="train_all_tokenizers",
            ),
            Node(
                measure_all_tokenizers,
                ["tokenizers", "shards", "labels", "tokenizers_folder"],
                ["tokenizer_metrics", "tokenizer_history"],
                tags="gpu",
                name="measure_all_tokenizers",
            ),
            Node(
                tokenize_shards,
                [
                    *("shards", "labels", *teaching, "tokenizers", settings, "params:seed"),
                    *("tokens_folder", "work_split", "shards_at"),
                ],
                "tokens",
                tags="gpu",
                name="tokenize_shards",
            ),
        ],
        tags="tokenizer_training",
    )
