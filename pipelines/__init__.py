"""The six stages, all of one shape, and how they are connected."""

from fourfold_ops.hooks.threads import limit_idle_threads

limit_idle_threads()  # here, since Python executes this file before any module that imports torch
