"""Pods that train together, as launchers with real processes and connections; the test is the Job controller and kubelet."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Sums its ranks step by step and keeps each step on disk. Once, at step 3, it computes for ten minutes and hears of nothing.
TRAINING = """
import json, os, sys, time
from pathlib import Path
import torch
import torch.distributed as distributed

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
distributed.init_process_group("gloo")
checkpoint = folder / "checkpoint.json"
state = torch.tensor(json.loads(checkpoint.read_text()) if checkpoint.exists() else [0.0, 0.0])
distributed.broadcast(state, 0)
with (folder / f"begun-{rank}").open("a") as file:
    file.write(f"{os.getpid()} {int(state[0])}\\n")
for step in range(int(state[0]), 8):
    if step == 3 and not (folder / f"here-{rank}").exists():
        (folder / f"here-{rank}").touch()
        end = time.monotonic() + 600
        while time.monotonic() < end:
            sum(range(10_000))
    part = torch.tensor([(rank + 1.0) * (step + 1)])
    distributed.all_reduce(part)
    state = torch.tensor([step + 1.0, state[1] + part[0]])
    if rank == 0:
        (folder / ".partial").write_text(json.dumps(state.tolist()))
        (folder / ".partial").replace(checkpoint)
    distributed.barrier()
distributed.destroy_process_group()
"""
RESULT = [8.0, sum(3.0 * (step + 1) for step in range(8))]  # ranks 1 + 2, times each step

# In place of torchrun, where how pods end is all that matters: does once what the file "plan-INDEX" says.
PRETENDED = """
import signal, sys, time
from pathlib import Path

folder, index = Path(sys.argv[-1]), next(option for option in sys.argv if option.startswith("--index="))[-1]
plan = folder / f"plan-{index}"
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), (folder / "saved").touch(), sys.exit(75)))
with (folder / f"begun-{index}").open("a") as file:
    file.write(sys.argv[1] + "\\n")
words = plan.read_text().split() if plan.exists() else ["exit", "0", "0.5"]
plan.unlink(missing_ok=True)
(folder / f"here-{index}").touch()
time.sleep(float(words[2]))
sys.exit(int(words[1]))
"""
PRETENDING = """
import sys
from fourfold_ops.kubernetes.in_pod import launch
launch.TORCHRUN = (sys.executable, {program!r})
sys.exit(launch.main(sys.argv[1:]))
"""


class Pods:
    """Two pods on this machine, which find each other at 127.0.0.1."""

    def __init__(self, folder: Path, *, real: bool = False):
        self.folder, self.running = folder, {}
        (folder / "training.py").write_text(TRAINING)
        (folder / "pretended.py").write_text(PRETENDED)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1] // 2 * 2
        pretending = ["-c", PRETENDING.format(program=str(folder / "pretended.py"))]
        self.program = [sys.executable, *(["-m", "fourfold_ops.kubernetes.in_pod.launch"] if real else pretending)]

    def start(self, *indexes):
        for index in indexes:
            place = ["--nodes=2", "--processes=1", f"--index={index}", "--first=127.0.0.1", f"--port={self.port}", "--grace=20"]
            command = [sys.executable, str(self.folder / "training.py"), str(self.folder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with (self.folder / f"log-{index}").open("ab") as log:
                process = subprocess.Popen([*self.program, *place, *command], stderr=log, stdout=log, env=environment)
            self.running[index] = process

    def kill(self, index):
        """End all that runs in a pod at once, as the kernel does when a container's first process ends."""
        first = psutil.Process(self.running[index].pid)
        for process in (first, *first.children(recursive=True)):
            process.kill()
        self.running[index].wait()

    def wait(self, index, seconds=240):
        return self.running[index].wait(seconds)

    def end_well(self):
        assert self.wait(0) == self.wait(1) == 0, self.logs()
        return True

    def until(self, *names, seconds=240):
        deadline = time.monotonic() + seconds
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def plan(self, index, code, seconds):
        """Say how the processes of a pod's next generation end, and when."""
        (self.folder / f"plan-{index}").write_text(f"exit {code} {seconds}")

    def begun(self, index):
        """What each of a pod's generations has written down at its beginning."""
        return [line.split() for line in (self.folder / f"begun-{index}").read_text().splitlines()]

    def logs(self):
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))

    def close(self):
        for index, process in self.running.items():
            if process.poll() is None:
                self.kill(index)


@pytest.fixture
def pods(tmp_path):
    made = Pods(tmp_path)
    yield made
    made.close()


@pytest.fixture
def real_pods(tmp_path):
    made = Pods(tmp_path, real=True)
    yield made
    made.close()


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_pod_is_killed_both_go_on_from_the_last_step_even_if_the_other_is_deep_in_a_computation(real_pods, killed):
    real_pods.start(0, 1)
    real_pods.until("here-0", "here-1")
    survivor = psutil.Process(int(real_pods.begun(1 - killed)[0][0]))
    real_pods.kill(killed)
    survivor.wait(20)  # not the ten minutes that it would compute for
    real_pods.start(killed)  # the Job replaces the pod that is gone; the other one's container has not ended
    assert real_pods.end_well()
    assert json.loads((real_pods.folder / "checkpoint.json").read_text()) == RESULT
    assert [[step for _, step in real_pods.begun(rank)] for rank in (0, 1)] == [["0", "3"], ["0", "3"]]


@pytest.mark.parametrize("failing", [0, 1])
def test_when_a_process_fails_its_own_pod_alone_ends_with_its_exit_code_and_no_generation_meets_another(pods, failing):
    pods.plan(failing, 5, 1.0)
    pods.plan(1 - failing, 75, 600)
    pods.start(0, 1)
    assert pods.wait(failing) == 5, pods.logs()
    assert pods.running[1 - failing].poll() is None
    pods.start(failing)
    assert pods.end_well()
    assert pods.begun(0) == pods.begun(1) and len(pods.begun(0)) == len({name for (name,) in pods.begun(0)}) == 2


def test_peers_that_fail_of_a_lost_connection_do_not_cost_a_second_pod(pods):
    pods.plan(0, 1, 0.6)
    pods.plan(1, 139, 1.0)
    pods.start(0, 1)
    assert pods.wait(1) == 139, pods.logs()
    assert pods.running[0].poll() is None
    pods.start(1)
    assert pods.end_well()


def test_a_pod_that_is_told_to_go_may_save_and_the_other_waits_for_its_successor(pods):
    for index in (0, 1):
        pods.plan(index, 0, 600)
    pods.start(0, 1)
    pods.until("here-0", "here-1")
    pods.running[1].send_signal(signal.SIGTERM)
    assert pods.wait(1) == 75, pods.logs()
    assert (pods.folder / "saved").exists()
    pods.start(1)
    assert pods.end_well()


def test_a_pod_that_is_told_to_go_before_all_are_there_goes_at_once(pods):
    pods.start(0)
    while "waits for 1" not in (pods.folder / "log-0").read_text():
        time.sleep(0.05)
    pods.running[0].send_signal(signal.SIGTERM)
    assert pods.wait(0, 20) == 143


def test_a_pod_that_is_done_waits_for_the_others_and_works_again_when_one_of_them_falls(pods):
    pods.plan(1, 0, 600)
    pods.start(0, 1)
    pods.until("here-0", "here-1")
    time.sleep(2)
    assert pods.running[0].poll() is None  # done, but the Job would not start it again if pod 1 fell now
    pods.kill(1)
    pods.start(1)
    assert pods.end_well()
    assert len(pods.begun(0)) == 2
