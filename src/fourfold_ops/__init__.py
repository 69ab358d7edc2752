"""The platform: Kedro, MLflow, DVC, Great Expectations, Kubernetes. Nothing is about 4M: any Kedro project can use it."""
