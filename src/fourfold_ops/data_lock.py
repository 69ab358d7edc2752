"""One run at a time for each data folder: a file lock that ends with its process, also after SIGKILL."""

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from fourfold_ops.errors import EXIT_BUSY, UserError

logger = logging.getLogger(__name__)
LOCK_FILE = ".run.lock"  # in the data folder; it stays there, only the lock on it counts
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # e.g. NFS without a lock daemon
_held: dict[Path, IO[str]] = {}  # locks of this process by file


class BusyError(UserError):
    """Another process works on the data folder; the same command succeeds when that process has ended."""

    exit_code = EXIT_BUSY


def acquire(folder: Path, command: str) -> None:
    """Take the lock of a data folder for this process; a process that holds it already keeps it.

    This is a POSIX lock: a forked child does not inherit it, so a loader worker that outlives a killed run does not hold it.
    Such a lock is lost when its process closes any descriptor of the file, so `acquire` opens the file only once.

    Args:
        folder: The data folder; created if it is absent.
        command: The command of this process, for the message of a second one.

    Raises:
        BusyError: Another process holds the lock; the message names it, its command and its start.
        UserError: The folder is not writable.
    """
    path = folder.resolve() / LOCK_FILE
    if path in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}.", "Free space or give write permission.") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _read(file)
        file.close()
        if error.errno in NO_LOCKS:
            logger.warning("%s has no file locks (%s). Start only one run at a time there.", folder, error.strerror)
            return
        raise BusyError(*describe(folder, holder)) from None
    _held[path] = file
    _write(file, {"host": socket.gethostname(), "process": os.getpid(), "command": command, "since": _now()})


def release(folder: Path) -> None:
    """Give the lock back, if this process holds it."""
    if file := _held.pop(folder.resolve() / LOCK_FILE, None):
        file.close()


def holder(folder: Path) -> dict[str, Any] | None:
    """Return what is known of the other process that holds the lock; None if the lock is free or held by this process."""
    path = folder.resolve() / LOCK_FILE
    if path in _held or not os.access(path, os.W_OK):
        return None
    with path.open("r+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return None if error.errno in NO_LOCKS else _read(file)
    return None


def describe(folder: Path, holder: dict[str, Any]) -> tuple[str, str]:
    """Return message and remedy for a folder on which another process works; `holder` is empty if it is unknown."""
    if not {"host", "process", "command", "since"} <= set(holder):
        return f"Another run works on {folder}.", "Wait until it ends, then run the same command."
    is_here = holder["host"] == socket.gethostname()
    where = "" if is_here else f" on {holder['host']}"
    return (
        f"Another run works on {folder}: process {holder['process']}{where}, `{holder['command']}`, since {holder['since']}.",
        f"Wait until it ends, or stop it with `kill {holder['process']}`{where}; then run the same command.",
    )


def _write(file: IO[str], holder: dict[str, Any]) -> None:
    try:
        file.seek(0)
        file.truncate()
        file.write(json.dumps(holder))
        file.flush()
    except OSError:  # a full disk: the lock holds without its description
        logger.debug("The lock file could not be written.", exc_info=True)


def _read(file: IO[str]) -> dict[str, Any]:
    try:
        file.seek(0)
        holder = json.loads(file.read())
    except (OSError, ValueError):  # its holder is just writing it
        return {}
    return holder if isinstance(holder, dict) else {}


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
