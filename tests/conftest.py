"""What holds for every test."""

from fourfold_ops.hooks.threads import limit_idle_threads

limit_idle_threads()  # before a test module imports torch
