"""Several processes as torchrun starts them, forked from one that has imported everything, because imports take seconds."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from ports import free_port


def launch(size: int, logs: Path, work: Callable[[int], None]) -> list[int]:
    """Run `work(rank)` in `size` processes; return the exit code of each, or minus the signal that ended it.

    Their output is in `<logs>-<rank>.log`.
    """
    port = free_port()
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            sys.stderr = sys.stdout = logs.with_name(f"{logs.name}-{rank}.log").open("a", buffering=1)
            code = 1
            try:
                work(rank)
                code = 0
            except SystemExit as error:
                code = error.code
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = []
    for child in reversed(children):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == -signal.SIGKILL:  # as torchrun does when a process is killed
            for other in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
        codes.append(code)
    return codes[::-1]
