"""A successful run: the same results as without a cluster, recorded as one run."""

import mlflow


def test_a_run_on_the_cluster_equals_a_local_run(project):
    driver = project.run()
    assert driver.code == 0, driver.output
    on_cluster = {name: project.read(name) for name in ("numbers.json", "trained.json", "labels.json", "report.html")}
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'data/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("miniature").experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parents[0]} == {parents[0].info.run_id}
    (training,) = [run for run in runs if run.data.tags.get("stage") == "training"]
    assert [m.step for m in client.get_metric_history(training.info.run_id, "state")] == list(range(1, 13))

    for name in on_cluster:
        (project.folder / "data" / name).unlink()
    for folder in ("training", "labels"):
        for path in (project.folder / "data" / folder).iterdir():
            path.unlink()
    local = project.start("run")
    assert local.wait() == 0, local.output
    assert {name: project.read(name) for name in on_cluster} == on_cluster
