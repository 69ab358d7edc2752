"""Shards apart from their manifests: in a bucket or a folder, under names that follow from their content.

A set with `shards_at.json` keeps its shards at the place that this file names, as `<place>/<first two digits>/<SHA-256>.tar`.
Its own folder has only the manifests and the facts, which are small and which DVC tracks. An object is written once and never
replaced by another content, so the manifests of all versions stay readable, and equal shards of several sets, versions, runs
and machines are one object. Nothing here deletes an object. See docs/decisions/0024.
"""

import hashlib
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError
from upath import UPath

from fourfold.configuration import Config
from fourfold.data.facts import ENDING, facts_path, shard_digest
from fourfold.digests import (
    damage_of,
    difference,
    forget_digests,
    is_intact,
    recorded_digests,
    sha256_file,
    write_recorded_json,
)
from fourfold.progress import progress
from fourfold.storage import PARTIAL_MARK, atomic_path, read_json, scratch_path, write_bytes

logger = logging.getLogger(__name__)
PLACE_FILE = "shards_at.json"
HERE = "here"  # instead of a place: in the folder of the set
CACHE_VARIABLE = "FOURFOLD_SHARD_CACHE"  # a folder that keeps a copy of each shard that was read from a bucket
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # an object of these is whole or absent, whatever is killed
REMEDY = "Restore it with `dvc checkout --force`, or run its stage again with `shards_at` set to its place."
AGAIN = "Make it again with `kedro run --pipelines=STAGE`, where STAGE writes this set: equal work gives the same object."


class Place(Config):
    """Content of `shards_at.json`."""

    place: str


@dataclass(frozen=True)
class ShardStore:
    """Shards at one place, by the SHA-256 of their bytes."""

    place: str  # an address such as s3://bucket/prefix, or an absolute path

    @classmethod
    def at(cls, place: str) -> "ShardStore":
        """Return the store at a place.

        Raises:
            ValueError: the place is no bucket and no absolute path, or no package for its protocol is installed.
        """
        protocol, is_address, rest = place.partition("://")
        if is_address and protocol in BUCKETS and rest.strip("/"):
            place = place.rstrip("/")
            _ = open_address(place).fs
        elif is_address or not Path(place).is_absolute():
            raise ValueError(
                f"Shards cannot be kept at {place!r}; allowed: an absolute path, a bucket ({', '.join(BUCKETS)}) such as "
                f"s3://bucket/prefix, or {HERE!r} for the folder of the set. Correct the "
                "entry `shards_at` of conf/*/catalog.yml."
            )
        return cls(place)

    def path(self, sha256: str) -> Any:
        """Return where the shard with this SHA-256 is: a `Path`, or a `UPath`, new at each call (see `ShardSet.root`)."""
        name = f"{sha256[:2]}/{sha256}.tar"
        return open_address(f"{self.place}/{name}") if "://" in self.place else Path(self.place, name)

    def found(self, sha256: str) -> str | None:
        """Return the SHA-256 of the bytes under a name, which are read; None if there are none."""
        path = self.path(sha256)
        with _explained(path, "read"):
            try:
                return sha256_file(path)
            except FileNotFoundError:
                return None

    def put(self, shard: Path, sha256: str) -> None:
        """Make sure that a shard is in the store: upload it if it is absent or damaged, and compare what is then there.

        Args:
            shard: the local file.
            sha256: of its bytes.

        Raises:
            ValueError: the store cannot be reached or written, or holds other bytes after the upload.
        """
        found, path = self.found(sha256), self.path(sha256)
        if found == sha256:
            return
        if found is not None:
            logger.warning("%s is damaged: SHA-256 %s. Writing it again.", path, found)
        with _explained(path, "written"):
            if isinstance(path, Path):
                with atomic_path(path) as temporary:
                    shutil.copyfile(shard, temporary)
            else:
                path.fs.put_file(str(shard), path.path)
        if (found := self.found(sha256)) != sha256:
            raise ValueError(
                f"{path} differs after its upload: SHA-256 {found}, expected {sha256}. Run the same command again; if this "
                "repeats, check the store."
            )

    def read(self, sha256: str, name: object) -> bytes:
        """Return the bytes of a shard; from the folder `$FOURFOLD_SHARD_CACHE` if it is set and has them, else kept there.

        Args:
            sha256: of the shard.
            name: of the shard in its set, for messages.

        Raises:
            ValueError: the object is missing, damaged or cannot be read.
        """
        path, cached, content = self.path(sha256), self._cached(sha256), b""
        if cached and cached.is_file():
            content = cached.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
            logger.warning("%s changed after it was written. Reading %s again.", cached, path)
        with _explained(path, "read"):
            try:
                content = path.read_bytes()
                found = hashlib.sha256(content).hexdigest()
            except FileNotFoundError:
                found = None
        _require(path, found, sha256, name)
        if cached:
            write_bytes(cached, content)
        return content

    def check(self, sha256: str, name: object) -> None:
        """Compare the object with its name; unlike `read` never with a copy. Raises ValueError as `read` does."""
        _require(self.path(sha256), self.found(sha256), sha256, name)

    def _cached(self, sha256: str) -> Path | None:
        folder = os.environ.get(CACHE_VARIABLE)
        return Path(folder, sha256[:2], f"{sha256}.tar") if folder and "://" in self.place else None


def store_of(root: Any) -> ShardStore | None:
    """Return the store of a set; None if its shards are in its own folder.

    Raises:
        ValueError: `shards_at.json` cannot be read.
    """
    path = root / PLACE_FILE
    return read_place(path) if path.is_file() else None


def read_place(path: Any, expected: Sequence[str] = ()) -> ShardStore:
    """Return the store that a file names.

    Args:
        path: a `Path` or `UPath`.
        expected: the SHA-256 that the file may have; if there are none, it is not compared.

    Raises:
        ValueError: the file is damaged; the message has both digests.
    """
    try:
        if expected and (damage := difference(path, sha256_file(path), expected)):
            raise ValueError(f"{damage} {REMEDY}")
        return ShardStore.at(Place.model_validate(read_json(path)).place)
    except ValidationError as error:
        raise ValueError(f"{path} does not name a place: {error}. {REMEDY}") from error


def is_written(path: Path, store: ShardStore | None) -> bool:
    """Return whether an earlier run has written a shard whole; in a store it is then also uploaded and compared."""
    return path.exists() if store is None else shard_digest(facts_path(path)) is not None


def shard_paths(folder: Path, store: ShardStore | None) -> list[Path]:
    """Return the path of each shard of a modality, sorted; in a store there is no file at the path, but facts are beside it."""
    if store is None:
        return sorted(folder.glob("shard-*.tar"))
    return sorted(_shard_of(facts) for facts in folder.glob(f"shard-*{ENDING}"))


def keep_at(root: Path, place: str | None, shared: bool = False) -> bool:
    """Keep the shards of a set at a place from now on: those that are elsewhere, e.g. in its folder, move there.

    Objects of a store stay in it. A call that was killed is completed by the next one.

    Args:
        root: the folder of the set, claimed by this work.
        place: an absolute path or the address of a bucket; "here": the folder of the set, which then is byte for byte that of a
            set that never was elsewhere. None: where they are, which for a new set is its own folder.
        shared: several processes do their shares of the work in this folder at the same time.

    Returns:
        Whether something changed.

    Raises:
        ValueError: the place is not allowed, cannot be reached, or a shard cannot be moved.
    """
    if place is None or (place == HERE and not (root / PLACE_FILE).is_file() and PLACE_FILE not in recorded_digests(root)):
        return False
    lock = root.parent / f"{PARTIAL_MARK}place-{root.name}"
    with FileLock(lock):
        is_changed = _bring_back(root) if place == HERE else _move_to(root, ShardStore.at(place))
    if not shared:
        lock.unlink(missing_ok=True)
    return is_changed


def _move_to(root: Path, wanted: ShardStore) -> bool:
    """Move the shards of a set to a store; return whether something changed."""
    found = _readable(root)
    moving = list(root.glob("*/*/shard-*.tar"))
    if found != wanted:  # also those that have no file here: in another store, or of a killed call
        moving = sorted({*moving, *map(_shard_of, root.glob(f"*/*/shard-*{ENDING}"))})
    for path in progress(moving, f"moving to {wanted.place}", unit="shard"):
        _move(path, found, wanted)
    write_recorded_json(root, PLACE_FILE, Place(place=wanted.place).model_dump())
    if moving:
        logger.info("%s: %d shards are now at %s.", root, len(moving), wanted.place)
    return bool(moving) or found != wanted


def _bring_back(root: Path) -> bool:
    """Write the shards of a set into its folder, and forget the store, whose objects stay; return whether there was one."""
    record = recorded_digests(root)
    if PLACE_FILE in record:
        # Without the place, all shards would have to be made again: so a lost one is an error, also in the next run
        if damage := damage_of(root, PLACE_FILE, record):
            raise ValueError(f"{damage} {REMEDY}")
        found = read_place(root / PLACE_FILE)
        moving = sorted(map(_shard_of, root.glob(f"*/*/shard-*{ENDING}")))
        for path in progress(moving, f"moving to {root}", unit="shard"):
            _bring(path, found)
        # The record first: from then on readers take the files, which are all there
        forget_digests(root, [PLACE_FILE])
        logger.info("%s: %d shards are in it again; their objects stay at %s.", root, len(moving), found.place)
    (root / PLACE_FILE).unlink(missing_ok=True)
    return True


def _bring(path: Path, found: ShardStore) -> None:
    """Write one shard of a store to its path, unless a killed call did; of a damaged one the facts go: it is made again."""
    sha256 = shard_digest(facts_path(path))
    if sha256 is None or (path.is_file() and sha256_file(path) == sha256):
        return
    if (content := _content(found, sha256, path)) is not None:
        write_bytes(path, content)


def open_address(url: str) -> UPath:
    """Return a new path object of an address; raises ValueError if no package for its protocol is installed."""
    try:
        with (
            warnings.catch_warnings()
        ):  # for caches, e.g. filecache::, it warns that it has no class of their own; none is needed
            warnings.filterwarnings("ignore", "UPath .* filesystem not explicitly implemented")
            path = UPath(url)
        _ = path.fs
    except (ImportError, ValueError) as error:
        advice = "Install fsspec's package for it (s3fs, gcsfs, ...)."
        raise ValueError(f"{url} cannot be opened: {error}. {advice}") from error
    return path


def _move(path: Path, found: ShardStore | None, wanted: ShardStore) -> None:
    """Move one shard of a set to a store; one that is damaged is forgotten, so that its stage makes it again."""
    sha256 = shard_digest(facts_path(path))
    if path.exists():
        if sha256_file(path) == sha256:
            wanted.put(path, sha256)
        else:
            logger.warning("%s does not agree with its facts. Making it again.", path)
            facts_path(path).unlink(missing_ok=True)
        path.unlink()
    elif sha256 is not None and found is not None:
        if (content := _content(found, sha256, path)) is not None:
            with scratch_path(path) as temporary:
                temporary.write_bytes(content)
                wanted.put(temporary, sha256)
    elif sha256 is None or wanted.found(sha256) != sha256:
        facts_path(path).unlink()  # a process was killed before it wrote the shard


def _content(found: ShardStore, sha256: str, path: Path) -> bytes | None:
    """Return the bytes of a shard; None if its object is missing or damaged: its facts are removed, so it is made again.

    Raises:
        ValueError: the store cannot be reached.
    """
    try:
        return found.read(sha256, path)
    except ValueError as error:
        if found.found(sha256) == sha256:  # raises if the store cannot be reached
            raise
        logger.warning("%s", error)
        facts_path(path).unlink()
        return None


def _readable(root: Path) -> ShardStore | None:
    """Return the store of a set; None if it has none, or the file that names it is damaged: the shards are then looked for."""
    return store_of(root) if is_intact(root, PLACE_FILE, remedy="Writing it again.") else None


def _shard_of(facts: Path) -> Path:
    return facts.with_name(facts.name.removesuffix(ENDING) + ".tar")


def _require(path: Any, found: str | None, sha256: str, name: object) -> None:
    if found is None:
        raise ValueError(f"{path}, the shard {name}, is missing: expected SHA-256 {sha256}. {AGAIN}")
    if found != sha256:
        raise ValueError(f"{path}, the shard {name}, is damaged: SHA-256 {found}, expected {sha256}. {AGAIN}")


@contextmanager
def _explained(path: Any, verb: str) -> Iterator[None]:
    """Turn what a client of a store raises, which is of many kinds, into one error that names the object."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} cannot be {verb} ({type(error).__name__}: {error}). Check the address, your credentials and the network; "
            "then run the same command again: finished shards are kept."
        ) from error
