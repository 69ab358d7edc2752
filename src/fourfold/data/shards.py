"""Shards: the format in which samples are stored, `<root>/<split>/<modality>/shard-00000.tar` beside a manifest.

A shard is a plain WebDataset tar of one modality (`<key>.<extension>`); the shards of all modalities of a split have the same
names and the same keys in the same order, so a stage adds a modality by adding a folder. Writing is atomic and
byte-reproducible. Reading compares every shard with its manifest, so a damaged file is an error that names it and never a
smaller data set.

A root may be a URL of any file system that fsspec supports (`s3://bucket/tokens`), which is only read. Every process reads
every shard of its epoch: with many readers on one machine use a cache, `filecache::s3://bucket/tokens`.

The shards of a set may also be apart from its manifests and facts, see `fourfold.data.shard_store`.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data import codecs, tars
from fourfold.data.facts import Fact, FactsFile, facts_of, facts_path, read_facts, write_facts
from fourfold.data.manifests import (
    MANIFEST_FILE,
    REMEDY,
    Alignment,
    Manifest,
    ShardInfo,
    WrittenShard,
    manifest_name,
    read_manifest,
    require_aligned,
    require_equal_keys,
    survey,
    version_of,
    write_manifest,
)
from fourfold.data.shard_store import PLACE_FILE, ShardStore, is_written, open_address, read_place, store_of
from fourfold.digests import BEFORE, DIGESTS_FILE, accepted_digests, forget_digests, recorded_digests
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import atomic_path, scratch_path
from fourfold.suggestions import unknown_name

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dots or slashes: readers split member names there; fits a ustar header

Sample = dict[str, Any]  # "__key__": str, and one decoded value for each modality


NAME_PARTS = 3  # of a manifest in its set: split, modality, file


def shard_name(index: int, source: str = "") -> str:
    """Return the file name of shard `index`; where there are several sources, of shard `index` of one of them.

    In the order of names, sources alternate: the first shards have samples of all of them.
    """
    return f"shard-{index:05d}-{source}.tar" if source else f"shard-{index:05d}.tar"


def source_of(name: str) -> str:
    """Return the source in the name of a shard; "" unless there are several."""
    return name.removesuffix(".tar").removeprefix("shard-").partition("-")[2]


def write_shard(
    path: Path,
    samples: Iterable[tuple[str, Any]],
    modality: str,
    class_table: ClassTable | None = None,
    store: ShardStore | None = None,
) -> None:
    """Write `(key, value)` pairs as one shard with its facts, atomically; equal pairs give equal bytes.

    Args:
        path: the file.
        samples: in order.
        modality: their modality.
        class_table: of class ids, for the facts.
        store: where the shard is kept; without, at `path`.

    Raises:
        ValueError: a key is malformed or repeated, or a value does not fit its modality.
    """
    facts: list[Fact] = []

    def members() -> Iterator[tuple[str, str, bytes]]:
        for key, value in samples:
            content = codecs.encode(modality, value)
            facts.append({"key": key, **facts_of(modality, content, value, class_table)})
            yield key, codecs.extension(modality, value), content

    write_members(path, members(), facts, class_table, store)


def write_members(
    path: Path,
    members: Iterable[tuple[str, str, bytes]],
    facts: Sequence[Fact],
    class_table: ClassTable | None = None,
    store: ShardStore | None = None,
) -> WrittenShard:
    """Write `(key, extension, stored bytes)` triples as one shard; like `write_shard`, for values that are encoded already.

    Args:
        path: the file.
        members: in order.
        facts: a row of facts for each member, complete when the members were read.
        class_table: that the facts were computed with.
        store: where the shard is kept; without, at `path`.

    Raises:
        ValueError: a key is malformed or repeated.
    """
    with atomic_path(path) if store is None else scratch_path(path) as temporary:
        sha256 = _write_tar(temporary, members, path)
        if store is not None:  # before the facts: in a store, a shard that has facts is there
            store.put(temporary, sha256)
        # before the tar gets its name: a shard that is there has its facts
        written = write_facts(path, facts, sha256, class_table)
    return WrittenShard.of(path, sha256, written)


def write_tar(path: Path, members: Iterable[tuple[str, str, bytes]]) -> str:
    """Write `(key, extension, stored bytes)` triples as a tar that is no shard: without facts; return its SHA-256.

    Raises:
        ValueError: a key is malformed or repeated.
    """
    with atomic_path(path) as temporary:
        return _write_tar(temporary, members, path)


def _write_tar(temporary: Path, members: Iterable[tuple[str, str, bytes]], path: Path) -> str:
    """Write the bytes of a tar that will be at `path`; return their SHA-256."""
    keys, digest = set[str](), hashlib.sha256()
    with temporary.open("wb") as file:

        def write(content: bytes) -> None:
            file.write(content)
            digest.update(content)

        for key, extension, content in members:
            if not KEY_PATTERN.fullmatch(key):
                raise ValueError(f"Key {key!r} is not allowed; use 1 to 90 of the characters A-Z a-z 0-9 _ -.")
            if key in keys:
                raise ValueError(f"Key {key!r} is repeated in {path}; keys must be unique.")
            keys.add(key)
            write(tars.header(f"{key}.{extension}", len(content)))
            write(content)
            write(bytes(-len(content) % tars.BLOCK))
        write(bytes(2 * tars.BLOCK))
        write(bytes(-file.tell() % tars.RECORD))
    return digest.hexdigest()


def read_members(path: Path) -> list[tuple[str, bytes]]:
    """Return key and stored bytes of each sample of one shard file, without comparing it with a manifest."""
    return list(tars.members(path, path.read_bytes()))


def write_columns(
    root: Path,
    split: str,
    name: str,
    columns: Mapping[str, Iterable[tuple[str, Any]]],
    class_tables: Mapping[str, ClassTable] | None = None,
) -> None:
    """Write shard `name` of several modalities of a split, except those that exist (see `ResumedShards`)."""
    store = store_of(root)
    for modality, samples in columns.items():
        if not is_written(path := root / split / modality / name, store):
            write_shard(path, samples, modality, (class_tables or {}).get(modality), store)


def finish_split(
    root: Path,
    split: str,
    modalities: Sequence[str],
    like: "ShardSet | None" = None,
    class_tables: Mapping[str, ClassTable] | None = None,
    *,
    origins: Mapping[str, dict[str, Any]] | None = None,
    is_part: bool = False,
    written: Mapping[str, Mapping[str, WrittenShard]] | None = None,
) -> None:
    """Write the manifests of a split once all its shards are there, and check that its modalities are aligned.

    Args:
        root: the folder of the shard set.
        split: the split to finish.
        modalities: its modalities; each has a folder of shards.
        like: the set that the shards were made from: keys must then be equal to its own, and so must the shards, unless
            `is_part`.
        class_tables: by modality of class ids, what the ids mean; written into its manifest.
        origins: by modality, what is recorded about the teacher that made it; written into its manifest.
        is_part: whether the set may lack shards of `like`.
        written: by modality and name, the shards that this process wrote; the others are read.

    Raises:
        ValueError: the modalities do not have the same keys in the same shards.
    """
    tables, known = class_tables or {}, written or {}
    manifests = {m: survey(root / split / m, m, tables.get(m), known.get(m)) for m in modalities}
    found = {m: Alignment.of(manifest, partial(_stored_keys, root / split / m)) for m, manifest in manifests.items()}
    wanted = like.alignment(split) if like is not None else found[modalities[0]]
    if is_part:
        wanted = wanted.only(found[modalities[0]].keys_sha256)
    for modality in modalities:
        require_aligned(wanted, found[modality], f"{root / split}: {modality}")
    for modality, manifest in manifests.items():
        origin = (origins or {}).get(modality)
        write_manifest(root / split / modality, manifest.model_copy(update={"origin": origin}))


def _stored_keys(folder: Path, name: str) -> list[str]:
    return read_facts(facts_path(folder / name)).keys


def forget_splits(root: Path, keep: Collection[str] = ()) -> None:
    """Remove the record of the splits of a set that were deleted: all but `keep`."""
    forget_digests(root, [name for name in recorded_digests(root) if name.split("/")[0] not in keep])


class ShardSet:
    """The shards under one root: a folder, or a URL that fsspec can open. Splits and modalities with a manifest are listed."""

    def __init__(self, root: Path | str) -> None:
        """Open a shard set; raises ValueError when no package for the protocol of a URL is installed."""
        self._url = root.rstrip("/") if isinstance(root, str) and "://" in root else None
        self._folder = Path(root) if self._url is None else None
        if self._url is not None:
            open_address(self._url)

    @property
    def root(self) -> Any:
        """The folder, as a `Path`; for a URL a `UPath`, which can do the same.

        The `UPath` is new at each call, since it keeps its file system: one that was opened before a fork hangs or fails in the
        workers of a loader. fsspec itself caches file systems, one set for each process.
        """
        return open_address(self._url) if self._url else self._folder

    @property
    def store(self) -> ShardStore | None:
        """Where the shards are; None if they are beside their manifests. Raises ValueError when `shards_at.json` is damaged."""
        expected = accepted_digests(self._record(), PLACE_FILE)
        if not expected:
            return None
        path = self.root / PLACE_FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing (expected SHA-256 {expected[0]}, {DIGESTS_FILE} of the set). {REMEDY}")
        return _read_place(path, version_of(path), expected)

    def __repr__(self) -> str:
        return f"ShardSet({str(self.root)!r})"

    def splits(self) -> list[str]:
        """Return the names of the splits, sorted."""
        return sorted({split for split, _ in self._manifests("*")})

    def modalities(self, split: str) -> list[str]:
        """Return the modalities of a split, sorted; raises ValueError when the split does not exist."""
        names = sorted(modality for of_split, modality in self._manifests(split) if of_split == split)
        if not names:
            raise ValueError(unknown_name(f"split of {self.root}:", split, self.splits(), "Run the stage that writes it."))
        return names

    def manifest(self, split: str, modality: str) -> Manifest:
        """Return the manifest of one modality; raises ValueError when it is missing or not one of ours."""
        name, record = manifest_name(split, modality), self._record()
        path, expected = self.root / name, accepted_digests(record, name)
        if path.exists():
            return read_manifest(path, version_of(path), expected)
        if expected:
            raise ValueError(f"{path} is missing (expected SHA-256 {expected[0]}, {DIGESTS_FILE} of the set). {REMEDY}")
        raise ValueError(unknown_name(f"modality of {self.root / split}:", modality, self.modalities(split)))

    def class_table(self, split: str, modality: str = "semseg") -> ClassTable:
        """Return what the class ids of a modality mean; raises ValueError when its manifest has no class table."""
        table = self.manifest(split, modality).class_table
        if table is None:
            raise ValueError(
                f"{self.root / split / modality / MANIFEST_FILE} has no class table. The labeler or source that writes "
                f"{modality!r} must declare one; then run its stage again."
            )
        return table

    def samples_by_shard(self, split: str) -> dict[str, int]:
        """Return the number of samples of each shard of a split, in order."""
        return {shard.name: shard.samples for shard in self._first_manifest(split).shards}

    def shard_names(self, split: str) -> list[str]:
        """Return the names of a split's shards, in order."""
        return list(self.samples_by_shard(split))

    def shard_keys(self, split: str, name: str) -> list[str]:
        """Return the keys of one shard of a split, in order."""
        return self.facts(split, self._first_manifest(split).modality, name).keys

    def keys(self, split: str) -> list[str]:
        """Return the keys of a split, in order; they must fit memory."""
        return [key for name in self.shard_names(split) for key in self.shard_keys(split, name)]

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return sum(self.samples_by_shard(split).values())

    def alignment(self, split: str, modality: str | None = None) -> Alignment:
        """Return what a modality (default: the first one) must have in common with all others of its split."""
        manifest = self._first_manifest(split) if modality is None else self.manifest(split, modality)
        return Alignment.of(manifest, lambda name: self.facts(split, manifest.modality, name).keys)

    def facts(self, split: str, modality: str, name: str) -> FactsFile:
        """Return the facts about the samples of one shard; raises ValueError when their file is missing or damaged."""
        info = self._info(split, modality, name).facts
        return read_facts(self.root / split / modality / info.name, info.sha256)

    def digest(self) -> str:
        """Return a SHA-256 over the content of every shard and every class table, for fingerprints."""
        digest = hashlib.sha256()
        for split in self.splits():
            for modality in self.modalities(split):
                manifest = self.manifest(split, modality)
                for shard in manifest.shards:
                    digest.update(f"{split}/{modality}/{shard.name} {shard.sha256}\n".encode())
                if manifest.class_table is not None:
                    digest.update(f"{split}/{modality} {manifest.class_table.model_dump_json()}\n".encode())
        return digest.hexdigest()

    def verify(self) -> None:
        """Compare all files with their manifests, and the keys of all modalities; raises ValueError that names a difference."""
        for split in self.splits():
            for modality in self.modalities(split):
                self.verify_modality(split, modality)

    def verify_modality(self, split: str, modality: str) -> None:
        """Compare the files of one modality with its manifest, and its keys with those of the first modality of the split."""
        require_aligned(self.alignment(split), self.alignment(split, modality), f"{self.root / split}: {modality}")
        store = self.store
        for shard in self.manifest(split, modality).shards:
            if store is None:
                self._content(split, modality, shard)
            else:
                store.check(shard.sha256, self.root / split / modality / shard.name)
            self.facts(split, modality, shard.name)

    def read(self, split: str, modalities: Sequence[str], name: str) -> list[Sample]:
        """Return the samples of one shard, decoded: `{"__key__": key, modality: value, ...}`.

        Raises:
            ValueError: a file is missing or damaged, or its keys differ from those of the other modalities.
        """
        samples: list[Sample] = []
        for modality in modalities:
            path, members = self._shard(split, modality, name)
            if not samples:
                samples = [{"__key__": key} for key, _ in members]
            require_equal_keys([sample["__key__"] for sample in samples], [key for key, _ in members], str(path))
            for sample, (key, content) in zip(samples, members, strict=True):
                try:
                    sample[modality] = codecs.decode(modality, content)
                except ValueError as error:
                    raise ValueError(f"{path}, sample {key!r}: {error}") from error
        return samples

    def read_bytes(self, split: str, modality: str, name: str) -> list[tuple[str, bytes]]:
        """Return key and stored bytes of each sample of one shard, verified but not decoded."""
        return self._shard(split, modality, name)[1]

    def read_file(self, split: str, modality: str, name: str) -> bytes:
        """Return the bytes of the tar of one shard, verified."""
        return self._content(split, modality, self._info(split, modality, name))

    def iterate(self, split: str, modalities: Sequence[str]) -> Iterator[Sample]:
        """Yield the samples of a split in order, holding one shard in memory at a time."""
        for name in self.shard_names(split):
            yield from self.read(split, modalities, name)

    def batches(self, split: str, modalities: Sequence[str], batch_size: int) -> Iterator[Sample]:
        """Yield batches of a split in order, see `collate`; the last one may be smaller."""
        waiting: list[Sample] = []
        for sample in self.iterate(split, modalities):
            waiting.append(sample)
            if len(waiting) == batch_size:
                yield collate(waiting)
                waiting = []
        if waiting:
            yield collate(waiting)

    def load_column(self, split: str, modality: str) -> Any:
        """Return one modality of a whole split (it must fit memory): an array (num_samples, ...) or a list."""
        return collate(list(self.iterate(split, [modality])))[modality]

    def _first_manifest(self, split: str) -> Manifest:
        return self.manifest(split, self.modalities(split)[0])

    def _manifests(self, split: str) -> set[tuple[str, str]]:
        """Return split and modality of each manifest that is there, or recorded and thus lost; `split` may be `*`."""
        there = {(path.parent.parent.name, path.parent.name) for path in self.root.glob(f"{split}/*/{MANIFEST_FILE}")}
        recorded = (name.removesuffix(BEFORE).split("/") for name in self._record())
        return there | {(parts[0], parts[1]) for parts in recorded if len(parts) == NAME_PARTS}

    def _record(self) -> dict[str, str]:
        path = self.root / DIGESTS_FILE
        return _read_record(self.root, version_of(path)) if path.is_file() else {}

    def _shard(self, split: str, modality: str, name: str) -> tuple[Any, list[tuple[str, bytes]]]:
        path = self.root / split / modality / name
        return path, list(tars.members(path, self._content(split, modality, self._info(split, modality, name))))

    def _info(self, split: str, modality: str, name: str) -> ShardInfo:
        info = self.manifest(split, modality).by_name.get(name)
        if info is None:
            names, path = ", ".join(self.shard_names(split)) or "none", self.root / split / modality / name
            raise ValueError(f"{path} is not in its manifest, which lists: {names}. Choose one of these.")
        return info

    def _content(self, split: str, modality: str, info: ShardInfo) -> bytes:
        path, store = self.root / split / modality / info.name, self.store
        if store is not None:
            return store.read(info.sha256, path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path} (SHA-256 {info.sha256}) is in the manifest but cannot be read ({error.strerror or error}). {REMEDY}"
            ) from error
        if len(content) != info.bytes or hashlib.sha256(content).hexdigest() != info.sha256:
            raise ValueError(
                f"{path} is damaged: SHA-256 {hashlib.sha256(content).hexdigest()} of its {len(content)} bytes, expected "
                f"{info.sha256} of {info.bytes} bytes ({MANIFEST_FILE}). {REMEDY}"
            )
        return content


def collate(samples: Sequence[Sample]) -> Sample:
    """Return samples as one batch: arrays of equal shape are stacked to (batch, ...), other values become a list."""
    names = samples[0] if samples else {}
    batch: Sample = {}
    for name in names:
        values = [sample[name] for sample in samples]
        stackable = all(isinstance(value, np.ndarray) and value.shape == values[0].shape for value in values)
        batch[name] = np.stack(values) if stackable else values
    return batch


@lru_cache(maxsize=256)
def _read_place(path: Any, _version: str, expected: tuple[str, ...]) -> ShardStore:
    return read_place(path, expected)


@lru_cache(maxsize=256)
def _read_record(root: Any, _version: str) -> dict[str, str]:
    return recorded_digests(root)
