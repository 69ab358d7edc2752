"""Keeps a driver small that follows hundreds of pods, a thread for each log.

glibc gives threads arenas of their own, up to eight for each core of the machine, and what is freed in one is not used in
another. A driver's threads wait for lines nearly all the time: a few arenas do.
"""

import ctypes
import sys

ARENAS, M_ARENA_MAX = 2, -8  # the second is glibc's number for the setting (malloc.h)


def keep_memory_small() -> bool:
    """Limit what threads that start from now on take; returns False where malloc is not glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_ARENA_MAX, ARENAS) == 1
