"""A folder with a tiny run of all stages, and what such a run must leave behind."""

import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from preloaded import Command, run
from tiny import ENVIRONMENT

COMMAND = ["kedro", "run", f"--env={ENVIRONMENT}"]
LIMIT = 600  # seconds of one run
# Of `kedro run`; the history of promotions is a run of another experiment.
STATUSES = "SELECT status FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = 'fourfold'"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    text: str

    @property
    def last_line(self) -> str:
        """Return the last line of the output that is not empty."""
        return next((line for line in reversed(self.text.splitlines()) if line.strip()), "")


class Project:
    """One folder with its own data, record of runs and lock of DVC."""

    def __init__(self, folder: Path, name: str = "", log: Path | None = None) -> None:
        """Create it for a folder; the output of its commands goes to `log`, by default a file beside the folder."""
        self.folder = folder
        self.log = log or folder.with_name(f"{folder.name} {name}".strip() + ".log")

    @classmethod
    def copy_of(cls, template: Path, target: Path, log: Path | None = None) -> "Project":
        """Return a new project with the code of another one; its data are copied too, if there are any."""
        shutil.copytree(template, target, symlinks=True)
        return cls(target, log=log)

    def remove(self) -> None:
        """Delete the project and its log."""
        shutil.rmtree(self.folder)
        self.log.unlink(missing_ok=True)

    def start(self, *options: str, first: str = "") -> Command:
        """Start the run; `first` is Python code that the new process executes beforehand."""
        environment = {**os.environ, "PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}"}
        environment |= {"HOME": tempfile.gettempdir(), "GIT_CONFIG_COUNT": "0"}
        self.log.unlink(missing_ok=True)
        return Command([*COMMAND, *options], self.folder, environment, self.log, first=first)

    def run(self, *options: str, first: str = "") -> Outcome:
        """Run to the end."""
        command = self.start(*options, first=first)
        return Outcome(command.wait(LIMIT), command.text())

    def stage(self, text: str) -> str:
        """Return where a run with this output is: a stage, or what comes before and after the stages."""
        database = self.folder / "data/mlflow.db"
        if not database.exists():
            return "store" if any((self.folder / "data").glob(".partial-*mlflow.db*")) else "start"
        if "Using synchronous mode" not in text:
            return "start"
        return "recording" if "execution completed" in text else _last_stage(database)

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of every file of the project by path, without those of git and compiled Python."""
        left_out = {".git", "__pycache__"}
        files = [path for path in self.folder.rglob("*") if path.is_file() and not left_out & set(path.parts)]
        return {path.relative_to(self.folder).as_posix(): _digest(path) for path in files}

    def products(self) -> dict[str, str]:
        """Return the SHA-256 of every result by path, of `dvc.lock` and of `dvc.run.yml`."""
        files = [path for path in self.folder.glob("data/0[1-5]_*/**/*") if path.is_file()]
        files += [self.folder / "dvc.lock", self.folder / "dvc.run.yml"]
        return {path.relative_to(self.folder).as_posix(): _digest(path) for path in files}

    def faults(self) -> list[str]:
        """Return what is wrong with the record of runs and models after a run that ended with 0."""
        found = []
        with closing(sqlite3.connect(self.folder / "data/mlflow.db")) as database:
            statuses = [status for (status,) in database.execute(STATUSES)]
            aliases = dict(database.execute("SELECT alias, version FROM registered_model_aliases").fetchall())
            tags = database.execute("SELECT version, value FROM model_version_tags WHERE key = 'digest'").fetchall()
        if "RUNNING" in statuses or "FINISHED" not in statuses:
            found.append(f"MLflow runs have status {sorted(set(statuses))}")
        if set(aliases) != {"candidate"} or len(tags) != 1 or set(aliases.values()) != {tags[0][0]}:
            found.append(f"registry: aliases {aliases}, versions with a digest {[version for version, _ in tags]}")
        if left := [path for path in self.folder.glob("data/**/.partial-*") if path.exists()]:
            found.append(f"temporary files are left: {', '.join(path.name for path in left[:3])}")
        return found


@dataclass(frozen=True)
class Calm:
    """An undisturbed run: the project before and after it, its products, seconds, and the bytes that it added."""

    template: Path
    project: Path
    products: dict[str, str]
    seconds: float
    used: int


def difference(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the paths whose content differs, or that only one side has."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def seconds_of(project: Project) -> float:
    """Run to the end and return the seconds that it took; raises RuntimeError if the run fails."""
    run(["kedro", "--version"], project.folder, dict(os.environ))  # starts the process that imports the libraries
    started = time.monotonic()
    outcome = project.run()
    if outcome.code:
        raise RuntimeError(f"the undisturbed run ended with {outcome.code}: {outcome.text[-3000:]}")
    return time.monotonic() - started


def _last_stage(database: Path) -> str:
    query = "SELECT value FROM tags JOIN runs USING (run_uuid) WHERE key = 'stage' ORDER BY start_time DESC LIMIT 1"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(query).fetchone()
    except sqlite3.Error:
        return "start"
    return str(found[0]) if found else "start"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
