"""The driver of a run: submits Jobs, follows them to their end, explains failures and records the run in MLflow."""
