"""Who is recording a run, and is it still alive? A killed process cannot say so itself: the next run does."""

import logging
import os
import socket
from typing import Any

import psutil

logger = logging.getLogger(__name__)
PROCESS_TAG = "process"


def this_process() -> str:
    """Return what names this process over reboots and reused ids: host, id and time of start."""
    return _name(psutil.Process(os.getpid()))


def is_alive(process: str) -> bool:
    """Tell whether a process named by `this_process` still runs; one of another host is taken for alive."""
    host, _, rest = process.partition(" ")
    if host != socket.gethostname():
        return True
    try:
        return _name(psutil.Process(int(rest.split()[0]))) == process
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return False


def is_at_work_here(process: str) -> bool:
    """Tell whether a process named by `this_process` is one of this machine, is not this one, and runs."""
    return process.partition(" ")[0] == socket.gethostname() and process != this_process() and is_alive(process)


def end_stale_runs(client: Any, experiment_id: str, local_store: bool) -> int:
    """Mark as KILLED what is still "running" though its process is gone; returns the number of runs.

    A local store belongs to this machine alone, so there the host's name (a container's changes) does not protect a run.
    """
    ended = 0
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        process = run.data.tags.get(PROCESS_TAG, "")
        if local_store and process:
            process = f"{socket.gethostname()} {process.partition(' ')[2]}"
        if process and not is_alive(process):
            client.set_tag(run.info.run_id, "ended_by", "a later run: the process was gone")
            client.set_terminated(run.info.run_id, "KILLED")
            ended += 1
    if ended:
        logger.info("%d recorded runs were cut off before their end: they are now marked KILLED.", ended)
    return ended


def _name(process: psutil.Process) -> str:
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"
