"""A separate git worktree in which a past run is repeated: its code, empty data, its own cache and record of runs."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.git import apply, commit_of, git, prefix

logger = logging.getLogger(__name__)
WORKTREE = "worktree"
STORE = "data/mlflow.db"  # in the worktree: a reproduction moves no alias of the user's registry
# The run must see neither the run that started this process, nor where the user records runs.
FOREIGN = (
    "DVC_STAGE",
    "KEDRO_ENV",
    "KEDRO_RUN_FLAGS",
    handover.STEP,
    handover.PARENT_RUN,
    handover.STAGE_RUNS,
    handover.GIT_TAGS,
)
Start = Callable[[list[str], Path, dict[str, str]], int]


class Workspace:
    """The worktree of one reproduction, in a folder that git ignores."""

    def __init__(self, project: Path, folder: Path, commit: str) -> None:
        """Create it; nothing is written yet.

        Args:
            project: The user's project. Its files are only read.
            folder: Receives the worktree, beside the reports.
            commit: Full id of the commit to check out.
        """
        self._project, self._commit = project.resolve(), commit
        self._worktree = folder.resolve() / WORKTREE
        self.root = self._worktree / prefix(project)

    def exists(self) -> bool:
        """Return whether the worktree is there at its commit, e.g. of a reproduction that was interrupted."""
        return (self._worktree / ".git").exists() and commit_of(self._worktree, "HEAD") == self._commit

    def create(self, patch: bytes = b"") -> None:
        """Check out the commit, without hooks, and apply a patch to it.

        Raises:
            UserError: git refuses.
        """
        self.remove()
        self._worktree.parent.mkdir(parents=True, exist_ok=True)
        hooks = f"core.hooksPath={os.devnull}"
        git(self._project, "-c", hooks, "worktree", "add", "--detach", "--force", str(self._worktree), self._commit)
        if patch:
            apply(self._worktree, patch)

    def remove(self) -> None:
        """Delete the worktree with its data."""
        if self._worktree.exists():
            shutil.rmtree(self._worktree)
        git(self._project, "worktree", "prune")

    def run(self, command: list[str], variables: Mapping[str, str], start: Start | None = None) -> int:
        """Run a command of the environment (`kedro run …`) in the worktree, with its code, and return the exit code.

        Args:
            command: Program and arguments.
            variables: Environment variables beside those of this process.
            start: Starts the command; by default a subprocess whose output goes to this terminal.
        """
        return (start or _start)(command, self.root, self.environment() | dict(variables))

    def environment(self) -> dict[str, str]:
        """Return the variables with which Python finds the code of the worktree, and MLflow its own store."""
        variables = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        paths = dict.fromkeys([self.root / "src", self.root, *self._mapped_paths()])
        variables["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if path.is_dir())
        variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{(self.root / STORE).as_posix()}"
        return variables

    def _mapped_paths(self) -> list[Path]:
        """Return where the import paths of this process inside the project lie in the worktree; others stay."""
        found = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        inside = [self.root / path.relative_to(self._project) for path in found if path.is_relative_to(self._project)]
        return [*inside, *(path for path in found if not path.is_relative_to(self._project))]


def _start(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    program = Path(sys.executable).parent / command[0]
    arguments = [str(program if program.exists() else command[0]), *command[1:]]
    try:
        process = subprocess.Popen(arguments, cwd=folder, env=environment)  # noqa: S603
    except OSError as error:
        raise UserError(
            f"{arguments[0]} cannot be started ({error.strerror}).", "Install the project's environment."
        ) from error
    try:
        return process.wait()
    except BaseException as error:  # let the run save its progress; a terminal sends Ctrl-C to both
        if not isinstance(error, KeyboardInterrupt):
            process.terminate()
        process.wait()
        raise
