"""The platform: Kedro, MLflow, DVC and Great Expectations glue that knows nothing of 4M; any Kedro project could use it."""
