"""any-to-any model, truth, metrics of all stages → metrics, report, registered model."""

from kedro.pipeline import Node, Pipeline

from pipelines.evaluation.nodes import evaluate_model, gather_metrics, publish_model, write_pages


def create_pipeline() -> Pipeline:
    """Return the stage that evaluates, reports and registers the model."""
    settings = "params:evaluation"
    return Pipeline(
        [
            Node(
                evaluate_model,
                ["any_to_any", "teachers", "shards", "labels", "truth", settings, "params:seed"],
                "out_of_the_box",
                name="evaluate_model",
            ),
            Node(
                gather_metrics,
                [
                    "out_of_the_box",
                    "transfer_results",
                    "teacher_metrics",
                    "tokenizer_metrics",
                    "pretraining_metrics",
                    "stage_seconds",
                ],
                "metrics",
                name="gather_metrics",
            ),
            Node(
                write_pages,
                [
                    "any_to_any",
                    "shards",
                    "labels",
                    "truth",
                    "metrics",
                    "transfer_results",
                    "pretraining_history",
                    settings,
                    "params:seed",
                ],
                ["report", "gallery"],
                name="write_pages",
            ),
            Node(publish_model, ["any_to_any_folder", "metrics"], "registered_model", name="publish_model"),
        ],
        tags="evaluation",
    )
