"""The MLflow store in a SQLite file: created whole, checked before use, and adapted to a moved project."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from fourfold_ops.atomic import locked, temporary_name
from fourfold_ops.errors import UserError

logger = logging.getLogger(__name__)
# Where MLflow stores addresses of artifacts, as table and column.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def prepare(database: Path, artifacts: Path) -> None:
    """Make sure that `database` is an MLflow store that can be opened.

    An absent or empty file is created. A file whose creation was interrupted has no experiments: it is renamed and created
    again. Creation takes seconds, in many transactions; it happens under a temporary name, so a killed process leaves no store.
    Of processes that start at once (drivers, steps in pods), one creates it and the others wait.

    Args:
        database: The SQLite file; its folder exists.
        artifacts: Folder of artifacts of this project.

    Raises:
        UserError: The file is damaged, or no SQLite database.
    """
    if _is_complete(database):
        return
    with locked(database.parent):
        if _is_complete(database):
            return
        if database.exists() and database.stat().st_size:
            aside = temporary_name(database).with_name(f"{database.name}.incomplete")
            database.replace(aside)
            logger.warning("%s was not created completely and has no runs; it is now %s.", database, aside.name)
        _create(database, artifacts)


def relocate(database: Path, artifacts: Path, inside: str) -> int:
    """Adapt the addresses of artifacts in a project that was moved, renamed or copied; return their number.

    Args:
        database: The SQLite file of the store.
        artifacts: Folder of artifacts of this project, absolute.
        inside: The same folder relative to the project, as in `conf/*/tracking.yml`.
    """
    new, ending = artifacts.as_uri(), "/" + quote(Path(inside).as_posix())
    if not artifacts.is_dir():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        stored = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        moved = [old for (old,) in stored if old and old.startswith("file://") and old.endswith(ending) and old != new]
        count = 0
        for old in moved:
            for table, column in LOCATIONS:
                statement = (
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"  # noqa: S608
                )
                values = (new, len(old) + 1, old, len(old) + 1, old + "/")
                count += connection.execute(statement, values).rowcount
    for old in moved:
        logger.info(
            "The project was moved: %d addresses of artifacts in %s now start with %s, not %s.", count, database, new, old
        )
    return count


def damaged(database: Path, error: Exception) -> UserError:
    """Return the error about a store that cannot be read."""
    reason = str(error).partition("[SQL")[0].strip().splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"{database} is not a usable MLflow store ({reason}).",
        f"Restore it from a copy, or rename it (mv {database.name} {database.name}.damaged): the next run creates a new one, "
        "and data and models stay as they are.",
    )


def _is_complete(database: Path) -> bool:
    """Return whether the store exists and has experiments. Raises UserError if the file is damaged."""
    if not database.exists() or not database.stat().st_size:
        return False
    try:
        # Not read-only: a process that was killed in a transaction leaves a journal, which the next one must roll back
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            # The last step of a creation adds the experiment "Default"; before it, no run can exist.
            return "experiments" in tables and bool(connection.execute("SELECT count(*) FROM experiments").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise damaged(database, error) from None


def _create(database: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = temporary_name(database)
    try:
        store = SqlAlchemyStore(f"sqlite:///{temporary.as_posix()}", artifacts.as_uri())
        store.engine.dispose()  # closes its connections
        temporary.replace(database)
    finally:
        for path in database.parent.glob(f"{temporary.name}*"):  # with its journal
            path.unlink(missing_ok=True)
