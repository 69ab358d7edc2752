"""The pseudo-labeling stage: shards → teachers → raw labels → labels and their quality."""

from kedro.pipeline import Node, Pipeline

from pipelines.pseudo_labeling.nodes import (
    combine_labels,
    describe_labels,
    draw_labels,
    label_images,
    measure_labelers,
    show_labels,
    train_labelers,
)


def create_pipeline() -> Pipeline:
    """Return the stage that labels images."""
    settings = "params:pseudo_labeling"
    return Pipeline(
        [
            Node(
                train_labelers,
                ["shards", "truth", settings, "params:seed", "teachers_folder", "metric_log"],
                "teachers",
                tags="gpu",
                name="train_labelers",
            ),
            Node(
                label_images,
                ["shards", "teachers", settings, "raw_labels_folder", "work_split", "shards_at"],
                "raw_labels",
                tags="gpu",
                name="label_images",
            ),
            Node(
                combine_labels,
                ["raw_labels", "shards", settings, "labels_folder", "shards_at"],
                ["labels", "label_report"],
                name="combine_labels",
            ),
            Node(draw_labels, ["shards", "labels"], "label_gallery", name="draw_labels"),
            Node(describe_labels, ["labels", "label_report", settings], "label_card", name="describe_labels"),
            Node(show_labels, ["shards", "labels", "label_report", settings], "label_page", name="show_labels"),
            Node(
                measure_labelers,
                ["teachers", "labels", "shards", "truth"],
                ["teacher_metrics", "teacher_history"],
                name="measure_labelers",
            ),
        ],
        tags="pseudo_labeling",
    )
