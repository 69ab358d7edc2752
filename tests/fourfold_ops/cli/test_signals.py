"""Signals that arrive where their exception is lost: Python ignores it in finalizers, and libraries replace it by another."""

import contextlib
import os
import signal
import sys
import time
import weakref

import click
import pytest
from click.testing import CliRunner
from omegaconf import ListConfig, OmegaConf

from fourfold_ops import errors
from fourfold_ops.cli import signals
from fourfold_ops.cli.failures import with_clear_errors


class Target:
    """An object that a weak reference can point to."""


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.05)


both_signals = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, errors.EXIT_TRY_AGAIN), (signal.SIGINT, errors.EXIT_INTERRUPTED)]
)


@both_signals
def test_signal_in_a_callback_of_a_weak_reference_ends_the_command(number, code, monkeypatch, tmp_path, quick_looks):
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


@both_signals
def test_signal_that_a_library_replaces_by_an_error_ends_the_command(number, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    reached = []

    def interrupted(self, index, item):
        reached.append(self._get_flag("readonly"))  # kept from now on, so that it must be forgotten at the end
        os.kill(os.getpid(), number)
        time.sleep(0.001)

    @click.command()
    def run():
        OmegaConf.create({"reasons": [{"type": "a"}]})  # fails while it restores flags of a list that is not complete

    monkeypatch.setattr(ListConfig, "_set_item_impl", interrupted)
    result = CliRunner().invoke(with_clear_errors(run))
    assert reached and result.exit_code == code, result.output
    assert "Run the same command to continue." in result.stderr and "Failed" not in result.stderr
    assert "NoneType" in (tmp_path / "data/run.log").read_text()


@both_signals
def test_signal_that_a_library_loses_before_it_fails_ends_the_command(number, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    @click.command()
    def run():
        with contextlib.suppress(BaseException):  # as code in C that clears what a length raises
            os.kill(os.getpid(), number)
            time.sleep(0.001)
        raise TypeError("could not determine the shape of object type 'UntypedStorage'")

    result = CliRunner().invoke(with_clear_errors(run))
    assert result.exit_code == code, result.output
    assert "Run the same command to continue." in result.stderr and "Failed" not in result.stderr
    assert "UntypedStorage" in (tmp_path / "data/run.log").read_text()


@both_signals
def test_signal_that_a_library_loses_without_an_error_ends_the_command(number, code, monkeypatch, tmp_path, quick_looks):
    monkeypatch.chdir(tmp_path)

    @click.command()
    def run():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
            time.sleep(0.001)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.005)

    result = CliRunner().invoke(with_clear_errors(run))
    assert result.exit_code == code, result.output
    assert "Run the same command to continue." in result.stderr


@both_signals
def test_signal_is_not_sent_again_during_the_clean_up(number, code, monkeypatch, tmp_path, quick_looks):
    monkeypatch.chdir(tmp_path)
    cleaned = []

    @contextlib.contextmanager
    def cleaning():
        try:
            yield
        finally:
            time.sleep(20 * signals.LOOK_SECONDS)
            cleaned.append(True)

    @click.command()
    def run():
        with cleaning():
            os.kill(os.getpid(), number)
            time.sleep(60)

    result = CliRunner().invoke(with_clear_errors(run))
    assert result.exit_code == code and cleaned, result.output


def test_error_after_a_signal_of_an_earlier_command_is_reported(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    @click.command()
    @click.option("--signal", "number", type=int)
    def run(number):
        if number:
            os.kill(os.getpid(), number)
            time.sleep(0.001)
        raise TypeError("later")

    command = with_clear_errors(run)
    assert CliRunner().invoke(command, ["--signal=2"]).exit_code == errors.EXIT_INTERRUPTED
    assert "Failed: TypeError: later" in CliRunner().invoke(command).stderr


def test_error_about_the_clean_up_after_a_signal_is_reported(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    @click.command()
    def run():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)
        finally:
            raise errors.UserError("One Job could not be deleted.", "Delete it.")

    result = CliRunner().invoke(with_clear_errors(run))
    assert "Failed: One Job could not be deleted. Delete it." in result.stderr
