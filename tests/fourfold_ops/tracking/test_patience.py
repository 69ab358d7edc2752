"""A tracking server that goes away in the middle of a run: the run waits, and nothing is lost."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow
import pytest
import tenacity

from fourfold_ops.tracking import patience, run
from fourfold_ops.tracking.patience import PatientClient, is_away
from fourfold_ops.tracking.run import ActiveRun


@contextmanager
def server(status, body, content_type="text/html"):
    """Answer every request in the same way; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


def error_of(address):
    with pytest.raises(mlflow.exceptions.MlflowException) as error:
        mlflow.MlflowClient(address).get_run("0" * 32)
    return error.value


@pytest.fixture
def no_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_errors_of_mlflow_tell_an_absent_server_from_a_refusal(no_retries):
    with server(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}', "application/json") as address:
        assert not is_away(error_of(address))
    assert is_away(error_of(address))  # nothing listens there any more
    for status in (500, 502, 503):
        with server(status, b"<html>busy</html>") as address:
            assert is_away(error_of(address))
    assert not is_away(ValueError("API request failed with exception"))


class Store:
    """Stands for the client of a server that fails some times."""

    experiment = "0"

    def __init__(self, failures, error=None):
        self.failures, self.calls, self.metrics = failures, 0, []
        self.error = error or mlflow.exceptions.MlflowException("API request to http://x failed with exception refused")

    def log_batch(self, run_id, metrics=()):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        self.metrics += [(metric.key, metric.value, metric.step) for metric in metrics]
        return run_id


@pytest.fixture
def naps(monkeypatch):
    """Replace pauses by a list of their seconds."""
    found = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", found.append)
    return found


def test_calls_are_repeated_until_the_server_answers(naps, caplog):
    store = Store(failures=7)
    client = PatientClient(store)
    assert client.log_batch("run", metrics=[]) == "run" and client.experiment == "0"
    assert store.calls == 8 and naps[:3] == [1, 2, 4] and max(naps) == patience.MAX_PAUSE
    assert caplog.text.count("The MLflow server does not answer.") == 1


def test_refusals_and_a_server_that_stays_away_are_errors(naps):
    store = Store(failures=1, error=ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        PatientClient(store).log_batch("run")
    assert store.calls == 1
    with pytest.raises(mlflow.exceptions.MlflowException, match="refused"):
        PatientClient(Store(failures=100), seconds=0).log_batch("run")


def test_metrics_wait_in_memory_in_order_while_training_continues(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    store = Store(failures=2)
    active = ActiveRun(PatientClient(store), "run")
    for step in range(100):
        now[0] += 1.0
        active.log_metrics({"loss": step / 2}, step=step)  # a pause would fail here: time stands still
    assert store.calls < 100 and caplog.text.count("kept in memory") == 1
    active.flush()
    assert store.metrics == [("loss", step / 2, step) for step in range(100)]
