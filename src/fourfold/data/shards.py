"""Shards: the format in which samples are stored, `<root>/<split>/<modality>/shard-00000.tar` beside a manifest.

A shard is a plain WebDataset tar of one modality (`<key>.<extension>`); the shards of all modalities of a split have the same
names and the same keys in the same order, so a stage adds a modality by adding a folder. Writing is atomic and
byte-reproducible. Reading compares every shard with its manifest, so a damaged file is an error that names it and never a
smaller data set.

A root may be a URL of any file system that fsspec supports (`s3://bucket/tokens`), which is only read. Every process reads
every shard of its epoch: with many readers on one machine use a cache, `filecache::s3://bucket/tokens`.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from upath import UPath

from fourfold.data import codecs, tars
from fourfold.data.manifests import (
    MANIFEST_FILE,
    Manifest,
    ShardInfo,
    describe,
    read_manifest,
    require_equal_keys,
    survey,
    write_manifest,
)
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import atomic_path
from fourfold.suggestions import unknown_name

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,90}")  # no dots or slashes: readers split member names there; fits a ustar header

Sample = dict[str, Any]  # "__key__": str, and one decoded value for each modality


def shard_name(index: int) -> str:
    """Return the file name of shard `index`."""
    return f"shard-{index:05d}.tar"


def write_shard(path: Path, samples: Iterable[tuple[str, Any]], modality: str) -> ShardInfo:
    """Write `(key, value)` pairs as one shard, atomically; equal pairs give equal bytes.

    Raises:
        ValueError: a key is malformed or repeated, or a value does not fit its modality.
    """
    encoded = ((k, codecs.extension(modality, value), codecs.encode(modality, value)) for k, value in samples)
    return write_members(path, encoded)


def write_members(path: Path, members: Iterable[tuple[str, str, bytes]]) -> ShardInfo:
    """Write `(key, extension, stored bytes)` triples as one shard; like `write_shard`, for values that are encoded already."""
    keys: dict[str, None] = {}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for key, extension, content in members:
            if not KEY_PATTERN.fullmatch(key):
                raise ValueError(f"Key {key!r} is not allowed; use 1 to 90 of the characters A-Z a-z 0-9 _ -.")
            if key in keys:
                raise ValueError(f"Key {key!r} is repeated in {path}; keys must be unique.")
            keys[key] = None
            file.write(tars.header(f"{key}.{extension}", len(content)) + content + bytes(-len(content) % tars.BLOCK))
        file.write(bytes(2 * tars.BLOCK))
        file.write(bytes(-file.tell() % tars.RECORD))
    return describe(path, path.read_bytes(), tuple(keys))


def read_members(path: Path) -> list[tuple[str, bytes]]:
    """Return key and stored bytes of each sample of one shard file, without comparing it with a manifest."""
    return list(tars.members(path, path.read_bytes()))


def write_columns(root: Path, split: str, name: str, columns: Mapping[str, Iterable[tuple[str, Any]]]) -> None:
    """Write shard `name` of several modalities of a split, except those that exist."""
    for modality in missing_columns(root, split, name, tuple(columns)):
        write_shard(root / split / modality / name, columns[modality], modality)


def missing_columns(root: Path, split: str, name: str, modalities: Sequence[str]) -> list[str]:
    """Return those of `modalities` whose shard `name` does not exist yet; for work that resumes in a claimed folder."""
    return [modality for modality in modalities if not (root / split / modality / name).exists()]


def finish_split(
    root: Path,
    split: str,
    modalities: Sequence[str],
    like: "ShardSet | None" = None,
    class_tables: Mapping[str, ClassTable] | None = None,
) -> None:
    """Write the manifests of a split once all its shards are there, and check that its modalities are aligned.

    Args:
        root: the folder of the shard set.
        split: the split to finish.
        modalities: its modalities; each has a folder of shards.
        like: the set that the shards were made from: shards and keys must then be equal to its own.
        class_tables: by modality of class ids, what the ids mean; written into its manifest.

    Raises:
        ValueError: the modalities do not have the same keys in the same shards.
    """
    tables = class_tables or {}
    manifests = {modality: survey(root / split / modality, modality, tables.get(modality)) for modality in modalities}
    wanted = like.keys_by_shard(split) if like is not None else manifests[modalities[0]].keys_by_shard()
    for modality, manifest in manifests.items():
        require_equal_keys(wanted, manifest.keys_by_shard(), f"{root / split}: {modality}")
    for modality, manifest in manifests.items():
        write_manifest(root / split / modality, manifest)


class ShardSet:
    """The shards under one root: a folder, or a URL that fsspec can open. Splits and modalities with a manifest are listed."""

    def __init__(self, root: Path | str) -> None:
        """Open a shard set; raises ValueError when no package for the protocol of a URL is installed."""
        self._url = root.rstrip("/") if isinstance(root, str) and "://" in root else None
        self._folder = Path(root) if self._url is None else None
        if self._url is not None:
            try:
                _ = _upath(self._url).fs
            except (ImportError, ValueError) as error:
                advice = "Install fsspec's package for it (s3fs, gcsfs, ...)."
                raise ValueError(f"{root} cannot be opened: {error}. {advice}") from error

    @property
    def root(self) -> Any:
        """The folder, as a `Path`; for a URL a `UPath`, which can do the same.

        The `UPath` is new at each call, since it keeps its file system: one that was opened before a fork hangs or fails in the
        workers of a loader. fsspec itself caches file systems, one set for each process.
        """
        return _upath(self._url) if self._url else self._folder

    def __repr__(self) -> str:
        return f"ShardSet({str(self.root)!r})"

    def splits(self) -> list[str]:
        """Return the names of the splits, sorted."""
        return sorted({path.parent.parent.name for path in self.root.glob(f"*/*/{MANIFEST_FILE}")})

    def modalities(self, split: str) -> list[str]:
        """Return the modalities of a split, sorted; raises ValueError when the split does not exist."""
        names = sorted(path.parent.name for path in self.root.glob(f"{split}/*/{MANIFEST_FILE}"))
        if not names:
            raise ValueError(unknown_name(f"split of {self.root}:", split, self.splits(), "Run the stage that writes it."))
        return names

    def manifest(self, split: str, modality: str) -> Manifest:
        """Return the manifest of one modality; raises ValueError when it is missing or not one of ours."""
        path = self.root / split / modality / MANIFEST_FILE
        if not path.exists():
            raise ValueError(unknown_name(f"modality of {self.root / split}:", modality, self.modalities(split)))
        return read_manifest(path, _version(path))

    def class_table(self, split: str, modality: str = "semseg") -> ClassTable:
        """Return what the class ids of a modality mean; raises ValueError when its manifest has no class table."""
        table = self.manifest(split, modality).class_table
        if table is None:
            raise ValueError(
                f"{self.root / split / modality / MANIFEST_FILE} has no class table. The labeler or source that writes "
                f"{modality!r} must declare one; then run its stage again."
            )
        return table

    def keys_by_shard(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return the keys of each shard of a split, in order."""
        return self.manifest(split, self.modalities(split)[0]).keys_by_shard()

    def shard_names(self, split: str) -> list[str]:
        """Return the names of a split's shards, in order."""
        return list(self.keys_by_shard(split))

    def keys(self, split: str) -> list[str]:
        """Return the keys of a split, in order."""
        return [key for keys in self.keys_by_shard(split).values() for key in keys]

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return sum(map(len, self.keys_by_shard(split).values()))

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
            wanted = self.keys_by_shard(split)
            for modality in self.modalities(split):
                manifest = self.manifest(split, modality)
                require_equal_keys(wanted, manifest.keys_by_shard(), f"{self.root / split}: {modality}")
                for shard in manifest.shards:
                    self._content(split, modality, shard)

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
            keys = tuple(sample["__key__"] for sample in samples)
            require_equal_keys({name: keys}, {name: tuple(key for key, _ in members)}, str(path))
            for sample, (key, content) in zip(samples, members, strict=True):
                try:
                    sample[modality] = codecs.decode(modality, content)
                except ValueError as error:
                    raise ValueError(f"{path}, sample {key!r}: {error}") from error
        return samples

    def read_bytes(self, split: str, modality: str, name: str) -> list[tuple[str, bytes]]:
        """Return key and stored bytes of each sample of one shard, verified but not decoded."""
        return self._shard(split, modality, name)[1]

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

    def _shard(self, split: str, modality: str, name: str) -> tuple[Any, list[tuple[str, bytes]]]:
        path = self.root / split / modality / name
        info = next((shard for shard in self.manifest(split, modality).shards if shard.name == name), None)
        if info is None:
            names = ", ".join(self.shard_names(split)) or "none"
            raise ValueError(f"{path} is not in its manifest, which lists: {names}.")
        return path, list(tars.members(path, self._content(split, modality, info)))

    def _content(self, split: str, modality: str, info: ShardInfo) -> bytes:
        path = self.root / split / modality / info.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path} is in the manifest but cannot be read ({error.strerror or error}). Run its stage again."
            ) from error
        if len(content) != info.bytes or hashlib.sha256(content).hexdigest() != info.sha256:
            raise ValueError(
                f"{path} is damaged: its {len(content)} bytes differ from the {info.bytes} bytes of the manifest's SHA-256. "
                "Delete it and run its stage again."
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


def _upath(url: str) -> UPath:
    with warnings.catch_warnings():  # for caches, e.g. filecache::, it warns that it has no class of their own; none is needed
        warnings.filterwarnings("ignore", "UPath .* filesystem not explicitly implemented")
        return UPath(url)


def _version(path: Any) -> str:
    """Return what changes when a file is rewritten: time and size of a local file, otherwise what its store reports."""
    if isinstance(path, Path):
        status = path.stat()
        return f"{status.st_mtime_ns} {status.st_size}"
    return str(path.fs.ukey(path.path))
