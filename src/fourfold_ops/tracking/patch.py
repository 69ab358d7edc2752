"""The difference between the working tree and its commit, as one patch with which `git apply` recreates the tree.

Nothing in the repository changes: git works on a copy of the index and writes new objects to a temporary folder.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fourfold_ops.secrets import SECRET_FILES, known_secrets

# What a user's configuration could change in a patch is given here.
DIFF = ["diff", "--cached", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"]
DIFF += ["--src-prefix=a/", "--dst-prefix=b/"]
MAX_FILES = 1000
MAX_FILE_BYTES, MAX_BYTES = 5_000_000, 20_000_000  # of one file and of all: code, not data


@dataclass(frozen=True)
class Patch:
    """A patch, and the changed files that it does not contain.

    Attributes:
        content: Output of `git diff --binary`; empty if nothing can be recorded.
        left_out: Reason by path, relative to the project.
    """

    content: bytes = b""
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Return the hex SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


def patch_of(project_path: Path, excluded: Sequence[str] = ()) -> Patch:
    """Return the patch from HEAD to the working tree: changed, new and deleted files that git does not ignore.

    Args:
        project_path: A folder in a git repository; other folders of the repository are left out.
        excluded: Files of the project that are recorded in another way.

    Raises:
        OSError: git fails.
    """
    pathspec = ["--", ".", *(f":(exclude){name}" for name in excluded)]
    listed = _git(project_path, ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", *pathspec])
    root = Path(_git(project_path, ["rev-parse", "--show-toplevel"]).decode().strip())
    changed = sorted(entry[3:] for entry in map(os.fsdecode, listed.split(b"\0")) if entry)  # relative to `root`
    reasons = _reasons(root, changed)
    kept = [path for path in changed if path not in reasons]
    content = _diff(root, kept, project_path) if kept else b""
    return Patch(content, {os.path.relpath(root / path, project_path): reason for path, reason in reasons.items()})


def _reasons(root: Path, changed: list[str]) -> dict[str, str]:
    """Return why changed files cannot be in the patch, by path."""
    reasons, total = {}, 0
    for number, path in enumerate(changed):
        file = root / path
        size = file.lstat().st_size if file.is_file() else 0
        if file.is_dir() and not file.is_symlink():
            reasons[path] = "a separate repository"
        elif number >= MAX_FILES:
            reasons[path] = f"more than {MAX_FILES} files changed"
        elif size > MAX_FILE_BYTES or total + size > MAX_BYTES:
            reasons[path] = f"{size:,} bytes"
        elif SECRET_FILES.search(path) or _has_secret(file):
            reasons[path] = "it contains a secret"
        else:
            total += size
    return reasons


def _has_secret(path: Path) -> bool:
    content = path.read_bytes() if path.is_file() else b""
    return any(secret.encode() in content for secret in known_secrets())


def _diff(root: Path, paths: list[str], project_path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        index, objects = (Path(_git(root, ["rev-parse", "--git-path", name]).decode().strip()) for name in ("index", "objects"))
        if (root / index).exists():
            shutil.copy2(root / index, f"{temporary}/index")
        environment = {
            "GIT_INDEX_FILE": f"{temporary}/index",
            "GIT_OBJECT_DIRECTORY": temporary,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve()),
        }
        # What is staged but left out must not be in the diff, so the index starts from HEAD; it keeps the times of files.
        _git(root, ["read-tree", "--reset", "HEAD"], environment)
        names = b"\0".join(map(os.fsencode, paths))
        _git(root, ["--literal-pathspecs", "add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"], environment, names)
        return _git(root, [*DIFF, "HEAD"], environment)


def _git(folder: Path, arguments: list[str], environment: dict[str, str] | None = None, given: bytes = b"") -> bytes:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=folder,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise OSError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout
