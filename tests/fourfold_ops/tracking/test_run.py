import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from sqlalchemy import event
from sqlalchemy.orm import Session

from fourfold_ops.tracking.run import ActiveRun, active_run, metric_name, set_active_run
from fourfold_ops.tracking.store import TrackingStore


def test_metric_names_are_valid_in_mlflow():
    assert metric_name("rgb->depth/abs_rel") == "rgb_to_depth/abs_rel"
    assert metric_name("clip/R@1") == "clip/R_1"


def test_each_thread_has_its_own_active_run():
    """Kedro's ThreadRunner runs nodes of different stages at the same time."""

    def work(name):
        set_active_run(ActiveRun(run_id=name))
        return active_run().run_id

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert (first.submit(work, "a").result(), second.submit(work, "b").result()) == ("a", "b")
        assert first.submit(lambda: active_run().run_id).result() == "a"
    assert active_run().run_id == ""


class Digested:
    """A catalog entry with a digest."""

    def digest(self):
        return "0123"

    def _describe(self):
        return {"filepath": "data/numbers.json"}


def test_a_data_set_that_another_process_records_at_the_same_moment_is_recorded_by_both(tmp_path, monkeypatch):
    """MLflow looks for the data set, then inserts it: here another process inserts it in between."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = TrackingStore(tmp_path, "sqlite:///mlflow.db", "test", "artifacts")
    inserted = []

    def insert_first(session, context, instances):
        if not inserted:
            inserted.append(True)
            with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
                columns = "dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source"
                values = ("f" * 32, store.experiment_id, "numbers", "0123", "Digested", "{}")
                connection.execute(f"INSERT INTO datasets ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)

    run = ActiveRun(store.client, store.client.create_run(store.experiment_id).info.run_id)
    event.listen(Session, "before_flush", insert_first)
    try:
        assert run.log_data("numbers", None, Digested(), "input")
    finally:
        event.remove(Session, "before_flush", insert_first)
    assert inserted == [True]
    [recorded] = store.client.get_run(run.run_id).inputs.dataset_inputs
    assert (recorded.dataset.name, recorded.dataset.digest) == ("numbers", "0123")
