"""Manifests: the content of the shards of one modality of a split, and the check that modalities are aligned."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fourfold.configuration import Config
from fourfold.data import tars
from fourfold.data.facts import FactsFile, facts_beside, facts_path, shard_digest
from fourfold.data.shard_store import ShardStore, shard_paths, store_of
from fourfold.digests import difference, is_intact, sha256_file, write_recorded_json
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import read_json

SCHEMA_VERSION = 2  # 1 had all keys
MANIFEST_FILE = "manifest.json"
REMEDY = "Make it again with `kedro run`, or restore it with `dvc checkout --force`."
CAPTION = "caption"  # the one modality of which a sample may have several


class FileInfo(Config):
    """A file beside a manifest."""

    name: str
    sha256: str


class ShardInfo(Config):
    """Entry of one shard in a manifest. The keys are in the facts beside the shard: a manifest stays small."""

    name: str
    sha256: str
    bytes: int
    samples: int
    keys_sha256: str  # of the keys in the order of the tar, see `digest_of_keys`
    facts: FileInfo  # the Parquet file beside the shard, see `fourfold.data.facts`


class Manifest(Config):
    """The shards of one modality of a split."""

    schema_version: int = SCHEMA_VERSION
    modality: str
    shards: tuple[ShardInfo, ...]
    class_table: ClassTable | None = None  # of class ids; absent from the file where there is none
    max_captions: int | None = None  # of one sample; absent where no sample has several
    origin: dict[str, Any] | None = None  # model, revision, license and digest of a teacher from elsewhere

    @cached_property
    def sha256_by_shard(self) -> dict[str, str]:
        """The SHA-256 of each shard."""
        return {shard.name: shard.sha256 for shard in self.shards}

    @cached_property
    def by_name(self) -> dict[str, ShardInfo]:
        """The entry of each shard."""
        return {shard.name: shard for shard in self.shards}


@dataclass(frozen=True)
class Alignment:
    """What must be equal in all modalities of a split: shards, and the keys in each.

    Attributes:
        keys_sha256: the digest of the keys of each shard, in order.
        keys: returns the keys of a shard, which only a message about a difference needs.
    """

    keys_sha256: Mapping[str, str]
    keys: Callable[[str], Sequence[str]]

    @classmethod
    def of(cls, manifest: Manifest, keys: Callable[[str], Sequence[str]]) -> "Alignment":
        """Return that of a manifest."""
        return cls({shard.name: shard.keys_sha256 for shard in manifest.shards}, keys)

    def only(self, names: Collection[str]) -> "Alignment":
        """Return that of some shards."""
        return Alignment({name: digest for name, digest in self.keys_sha256.items() if name in names}, self.keys)


def manifest_name(split: str, modality: str) -> str:
    """Return the name of a manifest in its set, as `digests.json` of the set records it."""
    return f"{split}/{modality}/{MANIFEST_FILE}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the shards in `folder` (`<root>/<split>/<modality>`), and record its digest in the set."""
    values = manifest.model_dump(mode="json", exclude_none=True)
    write_recorded_json(folder.parents[1], manifest_name(folder.parent.name, folder.name), values)


@lru_cache(maxsize=256)
def read_manifest(path: Any, _version: str, expected: tuple[str, ...] | None = None) -> Manifest:
    """Return the manifest at `path` (a `Path` or `UPath`); it is parsed once for each `_version` of the file.

    Args:
        path: the file.
        expected: the SHA-256 that the file may have.

    Raises:
        ValueError: the file has no digest, changed after it was written, is not a manifest, or has another schema version.
    """
    if expected is not None and (damage := difference(path, sha256_file(path), expected)):
        raise ValueError(f"{damage} {REMEDY}")
    try:
        manifest = Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a shard manifest: {error}. Run the stage that writes it again.") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {manifest.schema_version}; allowed: {SCHEMA_VERSION}. Run its stage again."
        )
    return manifest


def digest_of_keys(keys: Iterable[str]) -> str:
    """Return the hex SHA-256 of keys, one a line."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(f"{key}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class WrittenShard:
    """What a manifest says of a shard, and how many captions its samples have at most."""

    info: ShardInfo
    max_captions: int

    @classmethod
    def of(cls, path: Path, sha256: str, facts: FactsFile) -> "WrittenShard":
        """Return that of a shard with this path, this SHA-256 and these facts; the tar may be in a store."""
        keys = facts.keys
        info = ShardInfo(
            name=path.name,
            sha256=sha256,
            bytes=path.stat().st_size if path.exists() else tars.size_of(facts.table["bytes"].to_pylist()),
            samples=len(keys),
            keys_sha256=digest_of_keys(keys),
            facts=FileInfo(name=facts_path(path).name, sha256=facts.sha256),
        )
        return cls(info, facts.max_captions)


def finished_manifest(root: Path, split: str, modality: str) -> Manifest | None:
    """Return the manifest of a modality that is finished; None if there is none, or it changed after it was written."""
    name = manifest_name(split, modality)
    if not is_intact(root, name):
        return None
    return read_manifest(root / name, version_of(root / name))


def version_of(path: Any) -> str:
    """Return what changes when a file is rewritten: times, size and inode of a local one, else what its store reports."""
    if isinstance(path, Path):
        status = path.stat()
        return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
    return str(path.fs.ukey(path.path))


def survey(
    folder: Path,
    modality: str,
    class_table: ClassTable | None = None,
    written: Mapping[str, WrittenShard] | None = None,
) -> Manifest:
    """Return the manifest of the shards in `folder` (`<root>/<split>/<modality>`); facts that are not there are written.

    Args:
        folder: of the shards.
        modality: of the shards.
        class_table: of class ids.
        written: by name, the shards that this process wrote; the others are read.
    """
    known, store = written or {}, store_of(folder.parents[1])
    found = [known.get(path.name) or _surveyed(path, modality, class_table, store) for path in shard_paths(folder, store)]
    shards = [one for one in found if one is not None]
    most = max((one.max_captions for one in shards), default=1)
    several = most if most > 1 else None
    return Manifest(modality=modality, shards=tuple(one.info for one in shards), class_table=class_table, max_captions=several)


def _surveyed(path: Path, modality: str, class_table: ClassTable | None, store: ShardStore | None) -> WrittenShard | None:
    """Return what a manifest says of a shard; None if it is not in the store."""
    sha256 = sha256_file(path) if store is None else shard_digest(facts_path(path))
    if sha256 is None:
        return None
    facts = facts_beside(path, modality, sha256, class_table, partial(store.read, sha256, path) if store else None)
    return WrittenShard.of(path, sha256, facts)


def require_aligned(wanted: Alignment, found: Alignment, where: str) -> None:
    """Check that two modalities have the same keys in the same shards.

    Raises:
        ValueError: they differ; the message names the first shard and the first key.
    """
    if list(wanted.keys_sha256) != list(found.keys_sha256):
        odd = sorted(set(wanted.keys_sha256) ^ set(found.keys_sha256))
        raise ValueError(
            f"{where} does not have the same shards as the other modalities of its split: {', '.join(odd[:5])}. {tars.AGAIN}"
        )
    for name, digest in wanted.keys_sha256.items():
        if digest != found.keys_sha256[name]:
            require_equal_keys(wanted.keys(name), found.keys(name), f"{where}, {name}")


def require_equal_keys(wanted: Sequence[str], found: Sequence[str], where: str) -> None:
    """Check that two modalities have the same keys in a shard; raises ValueError that names the first difference."""
    if wanted == found:
        return
    pairs = zip((*wanted, None), (*found, None), strict=False)
    index, (key, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    raise ValueError(f"{where}: not aligned with the other modalities, sample {index} is {other!r}, not {key!r}. {tars.AGAIN}")
