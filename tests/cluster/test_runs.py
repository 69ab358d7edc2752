"""Runs that go well: the same results as without a cluster, and one record of them."""

import mlflow


def test_a_run_on_the_cluster_gives_the_bytes_of_a_run_without_it_and_one_tree_of_recorded_runs(project):
    driver = project.run()
    assert driver.code == 0, driver.output
    there = {name: project.read(name) for name in ("numbers.json", "trained.json", "labels.json", "report.html")}
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'data/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("miniature").experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parents[0]} == {parents[0].info.run_id}
    (training,) = [run for run in runs if run.data.tags.get("stage") == "training"]
    assert [m.step for m in client.get_metric_history(training.info.run_id, "state")] == list(range(1, 13))

    for name in there:
        (project.folder / "data" / name).unlink()
    for folder in ("training", "labels"):
        for path in (project.folder / "data" / folder).iterdir():
            path.unlink()
    local = project.start("run")
    assert local.wait() == 0, local.output
    assert {name: project.read(name) for name in there} == there
