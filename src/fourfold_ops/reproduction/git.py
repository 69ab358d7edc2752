"""Calls of git that change nothing in the working tree, the index or the branches of the user."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from fourfold_ops.errors import UserError

SECONDS = 600


def git(folder: Path, *arguments: str, index: Path | None = None) -> bytes:
    """Return what a git command prints.

    Args:
        folder: Where it runs.
        *arguments: The command.
        index: A separate index file, for commands that would change that of the user.

    Raises:
        UserError: git is absent or refuses; the message has its last line.
    """
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        raise UserError(f"git cannot be started ({error.strerror}).", "Install git.") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"`{shlex.join(['git', *arguments])}` failed: {lines[-1]}.", "Correct this in the repository.")
    return done.stdout


def commit_of(folder: Path, revision: str) -> str | None:
    """Return the full id of a commit, branch or tag; None if the repository has no such revision."""
    if revision.startswith("-"):
        return None
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    except UserError:
        return None


def read(folder: Path, commit: str, path: str) -> bytes | None:
    """Return the content of a file at a commit; None if it has no such file.

    Args:
        folder: The project folder, which may lie below the top of the repository.
        commit: Full id.
        path: Relative to `folder`.
    """
    try:
        return git(folder, "cat-file", "blob", f"{commit}:./{path}")
    except UserError:
        return None


def is_ignored(folder: Path, path: str) -> bool:
    """Return whether .gitignore excludes a path of a project."""
    try:
        return bool(git(folder, "check-ignore", "--", path))
    except UserError:  # also without a repository
        return False


def prefix(folder: Path) -> str:
    """Return the path of a project below the top of its repository, e.g. "" or "projects/vision"."""
    return git(folder, "rev-parse", "--show-prefix").decode().strip().rstrip("/")


def apply(folder: Path, patch: bytes) -> None:
    """Apply a patch to the files below the top folder of a checkout or an export; raises UserError if it does not fit."""
    with tempfile.NamedTemporaryFile(suffix=".patch") as file:
        file.write(patch)
        file.flush()
        git(folder, "apply", "--binary", "--whitespace=nowarn", file.name)


def export(folder: Path, commit: str, target: Path, patch: bytes = b"") -> Path:
    """Write all files of a commit, with a patch, below `target`, without a checkout; return the project's folder in it."""
    top = Path(git(folder, "rev-parse", "--show-toplevel").decode().strip())
    target.mkdir(parents=True, exist_ok=True)
    index = target.resolve() / ".index"
    try:
        git(top, "read-tree", commit, index=index)
        git(top, "checkout-index", "--all", f"--prefix={target.resolve()}/", index=index)
    finally:
        index.unlink(missing_ok=True)
    if patch:
        apply(target, patch)
    return target / prefix(folder)
