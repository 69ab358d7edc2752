"""The original files of a lock: in the cache of DVC, else in its remote. Each is checked against its MD5 when it is read."""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fourfold_ops.atomic import temporary_name
from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.content import BLOCK
from fourfold_ops.reproduction.lock import Entry
from fourfold_ops.versioning.hashes import FOLDER, md5_of_listing

logger = logging.getLogger(__name__)


class Objects:
    """Read-only access by MD5. Nothing is added to the cache of the project."""

    def __init__(self, project: Path) -> None:
        """Open cache and default remote of a project; without a remote only the cache is used."""
        from dvc.repo import Repo

        self._project = project
        self._repo: Any = Repo(str(project))
        self._stores: list[Any] | None = None

    def listing(self, md5: str) -> dict[str, str] | None:
        """Return the MD5 of every file of a folder by path; None if the listing is in neither cache nor remote."""
        with self.open(md5) as file:
            if file is None:
                return None
            rows = json.loads(file.read())
        files = {row["relpath"]: row["md5"] for row in rows}
        return files if md5_of_listing(files) == md5 else None

    @contextmanager
    def open(self, md5: str) -> Iterator[IO[bytes] | None]:
        """Yield a file from cache or remote as a temporary copy whose MD5 was checked; None if no good copy is found."""
        with tempfile.TemporaryFile() as target:
            yield target if any(self._copied(store, md5, target) for store in self._all_stores()) else None

    def restore(self, entry: Entry, root: Path) -> None:
        """Write a file or folder of a lock to its path below `root`.

        Raises:
            UserError: It is in neither cache nor remote.
        """
        target = root / entry.path
        if not entry.md5.endswith(FOLDER):
            self._write(entry.md5, target, entry.path)
            return
        files = self.listing(entry.md5)
        if files is None:
            raise self._missing(entry.path, entry.md5)
        for name, md5 in files.items():
            if not (place := (target / name).resolve()).is_relative_to(target.resolve()):
                raise UserError(f"The listing of {entry.path} contains {name!r}, which is outside.", "Delete that cache entry.")
            self._write(md5, place, f"{entry.path}/{name}")

    def _write(self, md5: str, target: Path, name: str) -> None:
        with self.open(md5) as source:
            if source is None:
                raise self._missing(name, md5)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_name(target)
            try:
                with temporary.open("wb") as file:
                    shutil.copyfileobj(source, file, BLOCK)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def _missing(self, name: str, md5: str) -> UserError:
        remotes = self._repo.config["remote"]
        where = "the cache of DVC and its remote" if remotes else "the cache of DVC, and no remote is configured"
        return UserError(
            f"{name} (MD5 {md5}) is missing in {where}.",
            "Run `dvc push` for that revision in the project that made it (see docs/operations.md)"
            + (", then try again." if remotes else " and add its remote here with `dvc remote add -d NAME URL`."),
        )

    def _all_stores(self) -> list[Any]:
        if self._stores is None:
            self._stores = [self._repo.cache.local]
            from dvc.exceptions import DvcException

            try:
                self._stores.append(self._repo.cloud.get_remote_odb())
            except DvcException as error:  # no remote, or one that cannot be read: the cache may suffice
                logger.debug("No remote of DVC is used: %s", error)
        return self._stores

    def _copied(self, store: Any, md5: str, target: IO[bytes]) -> bool:
        """Copy one object to `target`; return whether its content has the MD5."""
        target.seek(0)
        target.truncate()
        digest = hashlib.md5(usedforsecurity=False)
        with contextlib.suppress(FileNotFoundError), store.fs.open(store.oid_to_path(md5), "rb") as source:
            while block := source.read(BLOCK):
                digest.update(block)
                target.write(block)
            target.seek(0)
            if digest.hexdigest() == md5.removesuffix(FOLDER):
                return True
            logger.warning(
                "%s is damaged in %s: its MD5 is %s.", md5, store.fs.unstrip_protocol(store.path), digest.hexdigest()
            )
        return False
