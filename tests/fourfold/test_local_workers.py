"""Work in forked processes: the same results in the same order, and no process that outlives a failure."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from fourfold.local_workers import WorkerDiedError, one_thread, results_of, run_logged
from fourfold.metric_log import NullMetricLog


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(num_processes):
    def work(item: int) -> tuple[int, int]:
        time.sleep(0.02 * (item % 3))
        return item, torch.get_num_threads()

    assert list(results_of(work, range(9), num_processes)) == [(item, 1) for item in range(9)]


def test_bytes_do_not_depend_on_the_number_of_processes():
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def gradient(seed: int) -> torch.Tensor:
        inputs = torch.randn(300, 64, generator=torch.Generator().manual_seed(seed))
        return torch.autograd.grad((inputs @ weights).softmax(1).square().sum(), weights)[0]

    alone, shared = (list(results_of(gradient, range(4), number)) for number in (1, 2))
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


class RecordingLog(NullMetricLog):
    """Keeps every call, and the process in which it came."""

    def __init__(self) -> None:
        self.calls = []

    def log_metrics(self, metrics, step=None):
        self.calls.append((os.getpid(), metrics, step))

    def log_file(self, path, name):
        self.calls.append((os.getpid(), path, name))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_work_logs_arrives_in_this_process_in_order(tmp_path, num_threads):
    log, threads = RecordingLog(), torch.get_num_threads()

    def work(item: str, log) -> None:
        for step in range(200):  # more than the buffer of a pipe holds
            log.log_metrics({f"{item}/loss": 1 / (step + 1), "x" * 1000: 0.0}, step)
        log.log_file(tmp_path / item, item)

    torch.set_num_threads(num_threads)
    try:
        finished = list(run_logged(work, ["a", "b", "c"], log))
    finally:
        torch.set_num_threads(threads)
    assert sorted(finished) == ["a", "b", "c"]
    for item in finished:
        own = [call for call in log.calls if item in str(call[1:])]
        steps = [(os.getpid(), {f"{item}/loss": 1 / (step + 1), "x" * 1000: 0.0}, step) for step in range(200)]
        assert [call for call in own if isinstance(call[1], dict) and f"{item}/loss" in call[1]] == steps
        assert (os.getpid(), tmp_path / item, item) in own


class PickyError(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} is wrong in {where}")


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("item 3 is wrong"), ValueError), (PickyError("3", "here"), RuntimeError)]
)
def test_an_error_of_the_work_is_raised_and_ends_all_processes(tmp_path, error, kind):
    def work(item: int) -> None:
        (tmp_path / str(os.getpid())).touch()
        if item == 3:
            raise error

    with pytest.raises(kind, match="3 is wrong") as raised:
        list(results_of(work, range(8), 2))
    assert "in work" in raised.value.__notes__[0]
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2 and os.getpid() not in pids
    assert not any(map(is_alive, pids))


def test_a_killed_process_is_reported():
    def work(item: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDiedError, match="status -9"):
        list(results_of(work, range(4), 2))


PARENT = """
import os, time
from fourfold.local_workers import results_of

def work(item):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: lines of two processes must not mix
    time.sleep(60)

list(results_of(work, range(2), 2))
"""


def test_processes_end_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


FAILING = """
from fourfold.local_workers import results_of

results = results_of(lambda item: item, range(20), 2)
next(results)
raise ValueError("the caller fails and still holds the results")
"""


def test_python_ends_although_a_failed_caller_holds_the_results():
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and "still holds the results" in ended.stderr


def test_one_thread_is_restored():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
