"""Signals that arrive where Python ignores exceptions: in callbacks of weak references and in finalizers."""

import os
import signal
import sys
import time
import weakref

import click
import pytest
from click.testing import CliRunner

from fourfold_ops import errors
from fourfold_ops.cli.failures import with_clear_errors


class Target:
    """An object that a weak reference can point to."""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, errors.EXIT_TRY_AGAIN), (signal.SIGINT, errors.EXIT_INTERRUPTED)]
)
def test_signal_in_a_callback_of_a_weak_reference_ends_the_command(number, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: pytest.fail(f"shown: {ignored.exc_value!r}"))
    reached = []

    def callback(reference):
        reached.append(True)
        os.kill(os.getpid(), number)
        time.sleep(0.001)  # the handler runs here, and Python ignores what it raises

    @click.command()
    def run():
        target = Target()
        reference = weakref.ref(target, callback)
        del target
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.005)
        assert reference() is None

    result = CliRunner().invoke(with_clear_errors(run))
    assert reached and result.exit_code == code, result.output
