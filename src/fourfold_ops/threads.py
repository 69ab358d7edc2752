"""The number of threads is a parameter: results are bit-identical only for the same count."""

import os
import sys

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class ThreadsHook:
    """Pins the threads of this process to the top-level parameter `num_threads`, before the stages' libraries load."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Set the variables that numeric libraries read when they load, and torch directly if somebody has loaded it."""
        num_threads = context.config_loader["parameters"].get("num_threads")
        if num_threads is not None:
            pin_threads(int(num_threads))


def pin_threads(num_threads: int) -> None:
    """Pin this process and its children to `num_threads` (≥ 1)."""
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; it must be 1 or more. Correct it in conf/base/parameters.yml.")
    for name in VARIABLES:
        os.environ[name] = str(num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)
