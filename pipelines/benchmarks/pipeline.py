"""Model, data of public benchmarks → scores, result files for their servers, report."""

from kedro.pipeline import Node, Pipeline

from pipelines.benchmarks.nodes import score_benchmarks


def create_pipeline() -> Pipeline:
    """Return the pipeline; it is no part of the default run."""
    return Pipeline(
        [
            Node(
                score_benchmarks,
                ["model_finder", "known_teachers", "known_labels", "params:evaluation", "params:seed", "benchmarks_folder"],
                ["benchmark_results", "benchmark_report"],
                name="score_benchmarks",
            ),
        ]
    )
