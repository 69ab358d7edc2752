"""Calls of DVC within this process: a `dvc` command takes seconds to start."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fourfold_ops.atomic import digest_of, write_whole

logger = logging.getLogger(__name__)
LOCK_FILE = "dvc.lock"
DVC_LOGGERS = ("dvc", "dvc_data", "dvc_objects")


def stage_names(project_path: Path) -> list[str]:
    """Return the names of the stages in dvc.yaml, in order."""
    return list(_dvc_yaml(project_path)["stages"])


def names_of_files(project_path: Path, stages: Collection[str]) -> set[str]:
    """Return the names of files from outside the project on which stages depend, e.g. "source" of `${source}`."""
    table = _dvc_yaml(project_path)["stages"]
    deps = {dep for stage in stages for dep in table[stage].get("deps", [])}
    return {dep[2:-1] for dep in deps if dep.startswith("${")}


def digest_of_code(project_path: Path) -> str:
    """Return a digest over the code that stages depend on, and all of conf/ except conf/local."""
    stages = _dvc_yaml(project_path)["stages"].values()
    made = {next(iter(out)) if isinstance(out, dict) else out for stage in stages for out in stage.get("outs", [])}
    deps = {dep for stage in stages for dep in stage.get("deps", []) if not dep.startswith("${")}  # those are no code
    roots = [project_path / dep for dep in deps - made]
    files = [path for root in [*roots, project_path / "conf"] for path in _files(root)]
    return digest_of([path for path in set(files) if "local" not in path.relative_to(project_path).parts], project_path)


def commit_stages(project_path: Path, names: list[str]) -> None:
    """Store the outputs of stages that have just run in the cache of DVC, and write dvc.lock.

    DVC writes dvc.lock in place. After a failure (a full disk) the old one is restored; one that a kill left unreadable is
    renamed with a warning, and written again from the results.

    Raises:
        OSError: A file cannot be copied, e.g. because the disk is full. DVC itself raises only the number of such files.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo, lock_repo

    lock = project_path / LOCK_FILE
    _set_aside_if_damaged(lock)
    with _first_error() as first, _restored_after_failure(lock), Repo(str(project_path)) as repo, lock_repo(repo):
        try:
            # As `Repo.commit`, which reads and writes dvc.yaml and dvc.lock again for each stage: a second or more.
            found = {stage.name: stage for stage in repo.stage.load_all(str(project_path / "dvc.yaml"))}
            for name in names:
                found[name].save()
                found[name].commit()
            if names:
                found[names[0]].dvcfile.dump_stages([found[name] for name in names], update_pipeline=False)
        except Exception as error:
            if isinstance(first.error, OSError):
                raise first.error from error
            raise


def _set_aside_if_damaged(lock: Path) -> None:
    try:
        if not lock.exists() or isinstance(yaml.safe_load(lock.read_text(encoding="utf-8")), dict):
            return
    except (yaml.YAMLError, UnicodeDecodeError):
        pass
    damaged = lock.with_name(f"{lock.name}.damaged")
    lock.replace(damaged)
    logger.warning("%s was damaged, e.g. by a kill or a full disk; it is now %s, and a new one is written.", lock, damaged.name)


@contextmanager
def _restored_after_failure(lock: Path) -> Iterator[None]:
    before = lock.read_bytes() if lock.exists() else None
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the disk may be full: the next commit sets a damaged file aside
            lock.unlink(missing_ok=True) if before is None else write_whole(lock, before)
        raise


def addresses(project_path: Path, stages: Collection[str]) -> list[str]:
    """Return stages as DVC takes them from any folder."""
    return [f"{project_path / 'dvc.yaml'}:{name}" for name in stages]


def status(project_path: Path, stages: Collection[str] = (), without: str = "") -> dict[str, Any]:
    """Return what `dvc status` reports as changed; empty if data, code and parameters are those of dvc.lock.

    Args:
        project_path: The project.
        stages: Only these stages and those that they depend on; default: all.
        without: A stage that is left out: DVC has locked the one whose command runs.
    """
    from dvc.repo import Repo, lock_repo

    with Repo(str(project_path)) as repo, lock_repo(repo):  # while it is locked, DVC keeps what it has read
        graph = repo.index.graph  # from a stage to those that it depends on
        todo = [stage for stage in repo.index.stages if not stages or stage.name in stages]
        changed: dict[str, Any] = {}
        seen = set()
        while todo:
            stage = todo.pop()
            if stage not in seen:
                seen.add(stage)
                todo += graph.successors(stage)
                if stage.name != without:
                    changed |= stage.status(check_updates=True)
    return changed


def lock_with(project_path: Path, stage: str) -> bytes:
    """Return dvc.lock as DVC will write it when the command of a stage, in which this process runs, has ended."""
    from dvc.dvcfile import Lockfile
    from dvc.repo import Repo

    lock = project_path / LOCK_FILE
    with tempfile.TemporaryDirectory() as folder, _first_error(), Repo(str(project_path)) as repo:
        copy = Path(folder) / LOCK_FILE
        if lock.exists():
            copy.write_bytes(lock.read_bytes())
        (found,) = repo.stage.collect(*addresses(project_path, [stage]))
        found.save(run_cache=False)
        Lockfile(repo, str(copy), verify=False).dump(found)
        return copy.read_bytes()


class _FirstError(logging.Handler):
    """Keeps the first exception that is logged as an error; others are of attempts that DVC makes."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is None and record.exc_info and record.levelno >= logging.ERROR:
            self.error = record.exc_info[1]


@contextmanager
def _first_error() -> Iterator[_FirstError]:
    """Collect what DVC logs, instead of one traceback on the terminal for each file."""
    first = _FirstError()
    loggers = [logging.getLogger(name) for name in DVC_LOGGERS]
    kept = [(logger.handlers, logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [first], False
        yield first
    finally:
        for logger, (handlers, propagate) in zip(loggers, kept, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


def _dvc_yaml(project_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((project_path / "dvc.yaml").read_text(encoding="utf-8"))
    return content


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
