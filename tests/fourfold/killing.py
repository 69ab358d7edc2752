"""SIGKILL in the middle of a training, in a forked process."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from fourfold.training.loop import _Loop


def kill_in_step(step: int, run: Callable[[], object]) -> None:
    """Call `run` in a forked process that is killed when a training is in step number `step` (from 0).

    Use the fixture `one_thread`: the threads of OpenMP do not survive a fork.
    """
    child = os.fork()
    if not child:
        backward = _Loop._backward

        def killed(loop, terms):
            if loop.state.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return backward(loop, terms)

        _Loop._backward = killed  # type: ignore[method-assign]
        try:
            run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder, by path; empty folders too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}
