"""The coordinator and the workers of a restart group, over real connections on this machine."""

import socket
import time

import pytest
from ports import free_port

from fourfold_ops.kubernetes.in_pod import channel, restart_group
from fourfold_ops.kubernetes.in_pod.channel import Channel
from fourfold_ops.kubernetes.in_pod.restart_group import Coordinator, Worker, join, root_cause


@pytest.fixture
def coordinator():
    port = free_port()
    coordinator = Coordinator("train-0.train", 3, port)
    coordinator.port = port
    yield coordinator
    coordinator.close()


def connect(coordinator, pod, group="train-0.train"):
    worker = join(group, pod, "localhost", coordinator.port)
    assert worker is not None
    return worker


def poll_all(coordinator, *workers, rounds=20):
    for _ in range(rounds):
        coordinator.poll()
        for worker in workers:
            worker.poll()
        time.sleep(0.005)


def test_an_attempt_starts_when_all_pods_have_joined(coordinator):
    first, third = connect(coordinator, 0), connect(coordinator, 2)
    poll_all(coordinator, first, third)
    assert (first.attempt, first.missing) == ("", [1])
    second = connect(coordinator, 1)
    poll_all(coordinator, first, second, third)
    assert first.attempt == second.attempt == third.attempt != ""


def test_a_second_pod_of_one_index_and_pods_of_other_groups_are_refused(coordinator):
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    duplicate, stranger, out_of_range = (
        connect(coordinator, 1),
        connect(coordinator, 1, "other-0.other"),
        connect(coordinator, 3),
    )
    poll_all(coordinator, *workers, duplicate, stranger, out_of_range)
    assert duplicate.is_over and stranger.is_over and out_of_range.is_over
    assert not any(worker.is_over for worker in workers)


def test_a_silent_connection_is_lost(coordinator, monkeypatch):
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    monkeypatch.setattr(channel, "HEARTBEAT_SECONDS", 0.0)
    poll_all(coordinator, *workers)
    monkeypatch.setattr(channel, "LEASE_SECONDS", 1.0)
    while not workers[0].is_over:
        poll_all(coordinator, *workers[:2])
    poll_all(coordinator, *workers[:2])
    assert [worker.final_status for worker in workers[:2]] == ["restart", "restart"]
    assert workers[0].reason == "pod 2 is gone"


def test_no_pod_is_done_before_all_have_succeeded(coordinator):
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    workers[0].report_exit(0)
    workers[1].report_exit(0)
    poll_all(coordinator, *workers)
    assert not any(worker.is_over for worker in workers)
    workers[2].close()
    poll_all(coordinator, *workers[:2])
    assert [worker.final_status for worker in workers[:2]] == ["restart", "restart"]
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    for worker in workers:
        worker.report_exit(0)
    poll_all(coordinator, *workers)
    assert [worker.final_status for worker in workers] == ["done"] * 3


def test_of_several_failed_pods_one_exits_and_the_others_restart(coordinator):
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    for worker, code in zip(workers, (1, 137, 1), strict=True):
        worker.report_exit(code)
    poll_all(coordinator, *workers)
    assert [worker.final_status for worker in workers] == ["restart", "exit", "restart"]


def test_pods_do_not_restart_while_a_terminating_pod_saves(coordinator, monkeypatch):
    monkeypatch.setattr(restart_group, "SETTLE_SECONDS", 0.0)
    workers = [connect(coordinator, index) for index in range(3)]
    poll_all(coordinator, *workers)
    workers[0].report_termination()
    poll_all(coordinator, *workers)
    workers[1].report_exit(75)
    poll_all(coordinator, *workers)
    assert not any(worker.is_over for worker in workers)
    workers[0].close()
    poll_all(coordinator, *workers[1:])
    assert [worker.final_status for worker in workers[1:]] == ["restart", "restart"]


@pytest.mark.parametrize(
    ("codes", "cause"),
    [({0: 1, 1: 1}, 0), ({1: 1, 0: 1}, 1), ({0: 1, 1: 137}, 1), ({0: 137, 1: 78}, 1), ({0: 143, 1: 1}, 1), ({0: 0, 1: 75}, 1)],
)
def test_the_root_cause_is_the_pod_with_the_most_specific_exit_code(codes, cause):
    assert root_cause(codes) == cause


def test_malformed_messages_are_ignored_and_floods_disconnect():
    ours, theirs = socket.socketpair()
    theirs.sendall(b'nonsense\n\n[1]\n{"kind": "start", "attempt": "x"}\n')
    worker = Worker(Channel(ours), "train-0.train", 0)
    worker.poll()
    assert worker.attempt == "x" and not worker.is_over
    for _ in range(2):
        theirs.sendall(b"x" * 10_000)
        worker.poll()
    assert worker.is_over
