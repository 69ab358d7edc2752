"""Launchers with real processes and connections; the test plays the Job controller and kubelet."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ports import free_port

# Sums its ranks step by step and saves a checkpoint after each step. When it first reaches step 3, and then step 5, it does not
# communicate for ten minutes, as if it computed.
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
with (folder / f"started-{rank}").open("a") as file:
    file.write(f"{os.getpid()} {int(state[0])}\\n")
for step in range(int(state[0]), 8):
    here = folder / f"here-{rank}-{step}"
    if step in (3, 5) and not here.exists():
        here.touch()
        time.sleep(600)
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

# Replaces torchrun in tests that are only about how pods end: sleeps and exits as the file "plan-INDEX" prescribes, once.
FAKE_TORCHRUN = """
import signal, sys, time
from pathlib import Path

folder, index = Path(sys.argv[-1]), next(option for option in sys.argv if option.startswith("--index="))[-1]
plan = folder / f"plan-{index}"
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), (folder / "saved").touch(), sys.exit(75)))
with (folder / f"started-{index}").open("a") as file:
    file.write(sys.argv[1] + "\\n")
words = plan.read_text().split() if plan.exists() else ["exit", "0", "0.5"]
plan.unlink(missing_ok=True)
(folder / f"here-{index}").touch()
time.sleep(float(words[2]))
sys.exit(int(words[1]))
"""
WITH_FAKE_TORCHRUN = """
import sys
from fourfold_ops.kubernetes.in_pod import launch
launch.TORCHRUN = (sys.executable, {program!r})
sys.exit(launch.main(sys.argv[1:]))
"""


class Pods:
    """Two pods on this machine that connect to each other at 127.0.0.1."""

    def __init__(self, folder: Path, *, real: bool = False):
        self.folder, self.running = folder, {}
        (folder / "training.py").write_text(TRAINING)
        (folder / "fake_torchrun.py").write_text(FAKE_TORCHRUN)
        self.port = free_port(2)
        fake = ["-c", WITH_FAKE_TORCHRUN.format(program=str(folder / "fake_torchrun.py"))]
        self.program = [sys.executable, *(["-m", "fourfold_ops.kubernetes.in_pod.launch"] if real else fake)]

    def start(self, *indexes):
        for index in indexes:
            place = ["--nodes=2", "--processes=1", f"--index={index}", "--first=127.0.0.1", f"--port={self.port}", "--grace=20"]
            command = [sys.executable, str(self.folder / "training.py"), str(self.folder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with (self.folder / f"log-{index}").open("ab") as log:
                process = subprocess.Popen([*self.program, *place, *command], stderr=log, stdout=log, env=environment)
            self.running[index] = process

    def kill(self, index):
        """Kill all processes of a pod, as the kernel does when the first process of a container ends."""
        first = psutil.Process(self.running[index].pid)
        for process in (first, *first.children(recursive=True)):
            process.kill()
        self.running[index].wait()

    def wait(self, index, seconds=240):
        return self.running[index].wait(seconds)

    def succeed(self):
        assert self.wait(0) == self.wait(1) == 0, self.logs()
        return True

    def until(self, *names, seconds=240):
        deadline = time.monotonic() + seconds
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def plan(self, index, code, seconds):
        """Set the exit code of a pod's next attempt, and after how many seconds it exits."""
        (self.folder / f"plan-{index}").write_text(f"exit {code} {seconds}")

    def started(self, index):
        """Return what each attempt of a pod has written when it started."""
        return [line.split() for line in (self.folder / f"started-{index}").read_text().splitlines()]

    def logs(self):
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))

    def close(self):
        for index, process in self.running.items():
            if process.poll() is None:
                self.kill(index)


@pytest.fixture
def pods(tmp_path):
    pods = Pods(tmp_path)
    yield pods
    pods.close()


@pytest.fixture
def real_pods(tmp_path):
    pods = Pods(tmp_path, real=True)
    yield pods
    pods.close()


@pytest.mark.slow
def test_after_each_kill_both_pods_resume_even_if_one_is_computing(real_pods):
    real_pods.start(0, 1)
    for killed, step in ((0, 3), (1, 5)):
        real_pods.until(f"here-0-{step}", f"here-1-{step}")
        survivor = psutil.Process(int(real_pods.started(1 - killed)[-1][0]))
        real_pods.kill(killed)
        survivor.wait(120)  # not after the ten minutes of its computation
        real_pods.start(killed)  # the Job replaces the killed pod; the container of the other one still runs
    assert real_pods.succeed()
    assert json.loads((real_pods.folder / "checkpoint.json").read_text()) == RESULT
    assert [[step for _, step in real_pods.started(rank)] for rank in (0, 1)] == [["0", "3", "5"]] * 2


@pytest.mark.parametrize("failing", [0, 1])
def test_only_the_pod_of_a_failed_process_exits_and_attempts_never_mix(pods, failing):
    pods.plan(failing, 5, 1.0)
    pods.plan(1 - failing, 75, 600)
    pods.start(0, 1)
    assert pods.wait(failing) == 5, pods.logs()
    assert pods.running[1 - failing].poll() is None
    pods.start(failing)
    assert pods.succeed()
    assert pods.started(0) == pods.started(1) and len(pods.started(0)) == len({name for (name,) in pods.started(0)}) == 2


def test_pods_that_fail_as_a_consequence_do_not_exit(pods):
    pods.plan(0, 1, 0.6)
    pods.plan(1, 139, 1.0)
    pods.start(0, 1)
    assert pods.wait(1) == 139, pods.logs()
    assert pods.running[0].poll() is None
    pods.start(1)
    assert pods.succeed()


def test_a_pod_saves_on_sigterm_and_the_other_waits_for_its_successor(pods):
    for index in (0, 1):
        pods.plan(index, 0, 600)
    pods.start(0, 1)
    pods.until("here-0", "here-1")
    pods.running[1].send_signal(signal.SIGTERM)
    assert pods.wait(1) == 75, pods.logs()
    assert (pods.folder / "saved").exists()
    pods.start(1)
    assert pods.succeed()


def test_sigterm_before_all_pods_have_joined_ends_a_pod_at_once(pods):
    pods.start(0)
    while "waiting for pod 1" not in (pods.folder / "log-0").read_text():
        time.sleep(0.05)
    pods.running[0].send_signal(signal.SIGTERM)
    assert pods.wait(0, 20) == 143


def test_a_pod_that_is_done_restarts_when_another_pod_fails(pods):
    pods.plan(1, 0, 600)
    pods.start(0, 1)
    pods.until("here-0", "here-1")
    time.sleep(2)
    assert pods.running[0].poll() is None  # done, but if it exited now, the Job would not start it again when pod 1 fails
    pods.kill(1)
    pods.start(1)
    assert pods.succeed()
    assert len(pods.started(0)) == 2
