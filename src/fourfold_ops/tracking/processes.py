"""Which process records a run, and whether it is alive: the next run ends the MLflow runs of killed processes."""

import logging
import os
import socket
from typing import Any

import psutil

logger = logging.getLogger(__name__)
PROCESS_TAG = "process"
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "env", "cmd.exe"}


def this_process() -> str:
    """Return a name of this process that stays unique after reboots and reused ids: host, id and start time."""
    return _name(psutil.Process(os.getpid()))


def dvc_process() -> str:
    """Return a name of the `dvc repro` (or experiment) that runs this process as a stage; "" without one."""
    if "DVC_STAGE" not in os.environ:
        return ""
    ancestors = psutil.Process().parents()
    candidates = [ancestor for ancestor in ancestors if _program(ancestor) not in SHELLS]
    found = next((ancestor for ancestor in candidates if _is_dvc(ancestor)), candidates[0] if candidates else None)
    # a queue runs several experiments in one process
    return f"{_name(found)} {os.environ.get('DVC_EXP_NAME', '')}".strip() if found else ""


def is_alive(process: str) -> bool:
    """Return whether a process named by `this_process` runs; a process of another host counts as alive."""
    host, _, rest = process.partition(" ")
    if host != socket.gethostname():
        return True
    try:
        return _name(psutil.Process(int(rest.split()[0]))) == process
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return False


def is_at_work_here(process: str) -> bool:
    """Return whether `process` is another process of this machine, and runs."""
    return process.partition(" ")[0] == socket.gethostname() and process != this_process() and is_alive(process)


def end_stale_runs(client: Any, experiment_id: str, local_store: bool) -> int:
    """Mark runs as KILLED that have status "RUNNING" though their process is gone; return their number.

    A local store belongs to this machine, so the host name in the tag is ignored there: that of a container changes.
    """
    ended = 0
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        process = run.data.tags.get(PROCESS_TAG, "")
        if local_store and process:
            process = f"{socket.gethostname()} {process.partition(' ')[2]}"
        if process and not is_alive(process):
            client.set_tag(run.info.run_id, "ended_by", "a later run, since the process was gone")
            client.set_terminated(run.info.run_id, "KILLED")
            ended += 1
    if ended:
        logger.info("%d recorded runs were interrupted; they are now marked KILLED.", ended)
    return ended


def _program(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return any(os.path.basename(argument) == "dvc" for argument in process.cmdline()[:3])  # noqa: PTH119, no path
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"
