"""Any-to-any model, truth, all metrics → metrics, report, registered model."""

from kedro.pipeline import Node, Pipeline

from pipelines.evaluation.nodes import (
    draw_gallery,
    evaluate_model,
    gather_metrics,
    publish_model,
    write_model_card,
    write_page,
)


def create_pipeline() -> Pipeline:
    """Return the stage that scores, reports and registers the model."""
    settings = "params:evaluation"
    data = ["shards", "labels", "truth"]
    return Pipeline(
        [
            Node(
                evaluate_model,
                ["any_to_any", "teachers", *data, settings, "params:seed"],
                ["out_of_the_box", "paired_replicates", "worst_cases"],
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
                ],
                "metrics",
                name="gather_metrics",
            ),
            Node(
                draw_gallery,
                ["any_to_any", *data, settings, "params:seed"],
                ["gallery_sections", "gallery"],
                name="draw_gallery",
            ),
            Node(
                write_page,
                [
                    "metrics",
                    "gallery_sections",
                    "worst_cases",
                    "transfer_results",
                    "pretraining_history",
                    "teacher_history",
                    "tokenizer_history",
                    "ingestion_report",
                    "label_report",
                    settings,
                ],
                "report",
                name="write_page",
            ),
            Node(write_model_card, ["metrics", "ingestion_report", settings], "model_card", name="write_model_card"),
            # The report and the card as inputs make this node the last one: what is published is complete.
            Node(
                publish_model,
                ["any_to_any_folder", "any_to_any", "metrics", "paired_replicates", "report", "model_card"],
                "registered_model",
                name="publish_model",
            ),
        ],
        tags="evaluation",
    )
