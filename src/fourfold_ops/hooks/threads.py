"""The state of the CPU that results depend on: the number of threads, which is a parameter, and subnormals, which are 0."""

import os
import sys

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class ThreadsHook:
    """Pins the threads of this process to the top-level parameter `num_threads`, before the stages' libraries load.

    Then it has torch take subnormals for 0. Each thread has a switch of its own, set as in the thread that starts it: so this
    must happen before the first parallel work, or the last bits of a result depend on which thread computed them.
    """

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Set the variables that numeric libraries read when they load, and torch directly if somebody has loaded it."""
        num_threads = context.config_loader["parameters"].get("num_threads")
        if num_threads is not None:
            pin_threads(int(num_threads))

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        """Take subnormals for 0, in this thread and in the workers that it will start."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_flush_denormal(True)


def pin_threads(num_threads: int) -> None:
    """Pin this process and its children to `num_threads` (≥ 1)."""
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; it must be 1 or more. Correct it in conf/base/parameters.yml.")
    for name in VARIABLES:
        os.environ[name] = str(num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)
