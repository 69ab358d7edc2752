"""Threads of the CPU: their number, which is a parameter, what idle ones do, and subnormals, which they treat as 0."""

import os
import sys
from collections.abc import MutableMapping

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# By default an idle OpenMP thread spins for up to 200 ms before it sleeps. Beside a busy process, or in a container with a CPU
# quota, it spins on the core that the working thread needs. Milliseconds of a training step, quiet / beside a busy process:
# default 137 / 468 to 1,456; with these limits 139 to 164 / 328; OMP_WAIT_POLICY=PASSIVE (never spins) 195 to 229 / 304.
IDLE_LIMITS = {
    "GOMP_SPINCOUNT": "1000",  # GNU OpenMP, which torch ships on Linux: iterations of the waiting loop
    "KMP_BLOCKTIME": "1",  # Intel and LLVM OpenMP (builds with MKL, macOS): milliseconds
}
IDLE_CHOICES = ("OMP_WAIT_POLICY", *IDLE_LIMITS)  # the user has decided if one of these is set


def limit_idle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let idle OpenMP threads of this process and its children sleep soon, unless the environment already decides this.

    Call it before torch is imported: OpenMP reads its variables when it is loaded.
    """
    if not any(name in environment for name in IDLE_CHOICES):
        environment.update(IDLE_LIMITS)


class ThreadsHook:
    """Pins the number of threads to the top-level parameter `num_threads`, before the libraries of the stages load.

    Then it makes torch treat subnormals as 0. This is a flag of each thread, copied from the thread that starts it. So it must
    be set before the first parallel work; otherwise the last bits of a result depend on which thread computed them.
    """

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Set the variables that numeric libraries read when they load, and torch itself if it is loaded already."""
        num_threads = context.config_loader["parameters"].get("num_threads")
        if num_threads is not None:
            pin_threads(int(num_threads))

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        """Treat subnormals as 0 in this thread and in the workers that it will start."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_flush_denormal(True)


def pin_threads(num_threads: int) -> None:
    """Set the number of threads of this process and its children.

    Raises:
        ValueError: `num_threads` is below 1.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; it must be 1 or more. Correct it in conf/base/parameters.yml.")
    for name in VARIABLES:
        os.environ[name] = str(num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)
