import time

import pytest

from fourfold_ops.tracking import run
from fourfold_ops.tracking.run import ActiveRun
from fourfold_ops.tracking.system import SystemMetrics


@pytest.fixture(autouse=True)
def unbuffered(monkeypatch):
    monkeypatch.setattr(run, "FLUSH_SECONDS", 0.0)


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Store:
    """Keeps the names of metrics by run."""

    def __init__(self):
        self.found = {}

    def log_batch(self, run_id, metrics):
        self.found.setdefault(run_id, []).extend((metric.key, metric.step) for metric in metrics)

    def steps(self, run_id):
        return [step for key, step in self.found.get(run_id, []) if key == "system/cpu_utilization_percentage"]


def test_machine_is_sampled_into_the_run_that_is_watched():
    store, system = Store(), SystemMetrics(seconds=0.01)
    for name in ("first", "first", "second"):
        system.watch(ActiveRun(store, name))
        known = len(store.steps(name))
        wait_until(lambda name=name, known=known: len(store.steps(name)) > known + 1)
    system.end()
    steps = {name: store.steps(name) for name in ("first", "second")}
    assert steps == {name: list(range(len(found))) for name, found in steps.items()}  # watching it again continues counting
    time.sleep(0.05)
    assert {name: store.steps(name) for name in ("first", "second")} == steps


def test_failure_of_the_store_ends_only_the_sampling():
    class Broken:
        def log_batch(self, run_id, metrics):
            raise RuntimeError("broken")

    system = SystemMetrics(seconds=0.01)
    system.watch(ActiveRun(Broken(), "run"))
    time.sleep(0.05)
    system.end()
