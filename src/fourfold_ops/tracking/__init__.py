"""MLflow: a parent run per `kedro run`, a child per stage."""
