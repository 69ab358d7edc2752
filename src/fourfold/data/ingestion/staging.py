"""Staging: resumable cleaning of a stream, chunk by chunk.

A chunk is complete once the digests of its files are recorded, and a complete chunk is cleaned again only if its files changed
since. Afterward the ingestion assigns splits,
removes duplicates and fills shards from the staged chunks in order. That is cheap and a pure function of the staged data, so
the resulting bytes do not depend on interruptions. Memory is bounded by one chunk of cleaned samples.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from fourfold.configuration import Config
from fourfold.data import codecs
from fourfold.data.annotations import ANNOTATIONS, AnnotationConfig
from fourfold.data.facts import Fact, array_facts
from fourfold.data.ingestion.cleaning import CleanSample, clean
from fourfold.data.ingestion.filters import FilterConfig, broken
from fourfold.data.ingestion.images import CleaningConfig, StorageConfig
from fourfold.data.ingestion.near_duplicates import perceptual_hash
from fourfold.data.ingestion.sources import Drop, RawSample, SampleStream, SourceSlice
from fourfold.data.ingestion.sources.files import printable
from fourfold.data.shards import read_members, write_members
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.digests import is_intact, record_digests, write_recorded_json
from fourfold.local_workers import run_all
from fourfold.modalities import SOURCE_LABELS
from fourfold.progress import progress
from fourfold.storage import read_json, write_json

SLICE_FILE = "slice.json"
STAGED = (*SOURCE_LABELS, ANNOTATIONS)  # each in a separate tar
REMEDY = "Cleaning it again."


class StagedDrop(Config):
    """The stored form of a `Drop`."""

    name: str
    reason: str
    what: str


class ChunkRecord(Config):
    """The result of one chunk: digests of the kept samples, in the order of the tars beside the record, and the drops.

    `annotated` and `captioned` count samples that have an annotation, or a caption. `keys`, the perceptual `hashes` (see
    `near_duplicates`; None where none is needed) and the facts about the images are in the order of the digests.
    """

    digests: tuple[str, ...]
    drops: tuple[StagedDrop, ...]
    annotated: int
    captioned: int
    keys: tuple[str, ...]
    hashes: tuple[int | None, ...]
    images: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class StagedSample:
    """One cleaned sample, encoded as it will be stored in its shard."""

    key: str
    image: bytes
    caption: bytes
    digest: str
    part: str = ""  # name of its slice, e.g. of its archive
    annotations: bytes = b"{}"  # JSON, see `fourfold.data.annotations`
    hash: int | None = None  # perceptual, see `near_duplicates`
    facts: Fact = field(default_factory=dict)  # about the image before it is compressed, see `fourfold.data.facts`


@dataclass(frozen=True)
class StagingRules:
    """How raw samples become staged ones.

    Attributes:
        cleaning: what a sample must be like.
        image_size: side of the cleaned images in pixels.
        annotations: which metadata are annotations.
        filters: rules about metadata.
        hashed: whether perceptual hashes are needed.
        storage: how images are stored.
        chunk_size: number of items that are recorded, and held in memory, at once by each process.
    """

    cleaning: CleaningConfig
    image_size: int
    annotations: AnnotationConfig
    chunk_size: int
    filters: tuple[FilterConfig, ...] = ()
    hashed: bool = False
    storage: StorageConfig = field(default_factory=StorageConfig)

    @property
    def encoding(self) -> tuple[str, int]:
        """Format and quality of stored images."""
        return self.storage.format, self.storage.quality

    def apply(self, raw: RawSample | Drop) -> CleanSample | Drop:
        """Return the cleaned sample, or why it is left out."""
        if isinstance(raw, Drop):
            return raw
        reason = broken(self.filters, raw.metadata)
        return Drop(raw.name, reason, "removal") if reason else clean(raw, self.cleaning, self.image_size)


def stage(streams: Mapping[Path, SampleStream], rules: StagingRules, work_split: WorkSplit = NO_SPLIT) -> None:
    """Clean all of some streams; resumes where an interrupted call stopped.

    Slices of local files are cleaned by several processes at once, which changes no byte (`fourfold.local_workers`). Others
    are read here one after the other: the connections of a process do not survive a fork.

    Args:
        streams: the samples to clean, by the staging folder of the stream.
        rules: what each becomes.
        work_split: the share of the slices that this process cleans.
    """

    def clean_slice(at: tuple[Path, SourceSlice]) -> None:
        folder, part = at
        _stage_slice(part, rules, folder)

    slices = [
        (folder / f"slice-{index:05d}", part, "://" not in stream.location)
        for folder, stream in streams.items()
        for index, part in enumerate(stream.slices)
    ]
    share = work_split.of(slices)
    waiting = [(folder, part, is_local) for folder, part, is_local in share if not _is_staged(folder)]
    local = [(folder, part) for folder, part, is_local in waiting if is_local]
    if len(local) > 1:
        run_all(clean_slice, local, "cleaning", "part")
    for folder, part, is_local in waiting:
        if not is_local or len(local) == 1:
            clean_slice((folder, part))


def staged_chunks(folder: Path) -> Iterator[tuple[list[StagedSample], tuple[StagedDrop, ...]]]:
    """Yield the samples and drops of each staged chunk, in the order of the stream."""
    for slice_folder in sorted(folder.glob("slice-*")):
        part = read_json(slice_folder / SLICE_FILE)
        for chunk in _chunks(slice_folder, part["chunks"]):
            record = ChunkRecord.model_validate(read_json(chunk.with_suffix(".json")))
            columns = (read_members(chunk.with_suffix(f".{modality}.tar")) for modality in STAGED)
            rows = zip(*columns, record.digests, record.hashes, record.images, strict=True)
            samples = [
                StagedSample(key, image, text, digest, part["name"], notes, hash_, facts)
                for (key, image), (_, text), (_, notes), digest, hash_, facts in rows
            ]
            yield samples, record.drops


def staged_outlines(folder: Path) -> Iterator[StagedSample]:
    """Yield what the records hold of the staged samples of a stream, in order: all but image, caption and annotations."""
    for slice_folder in sorted(folder.glob("slice-*")):
        part = read_json(slice_folder / SLICE_FILE)
        for chunk in _chunks(slice_folder, part["chunks"]):
            record = ChunkRecord.model_validate(read_json(chunk.with_suffix(".json")))
            for key, digest, hash_ in zip(record.keys, record.digests, record.hashes, strict=True):
                yield StagedSample(key, b"", b"", digest, part["name"], hash=hash_)


def count_staged(folder: Path, what: Literal["annotated", "captioned"]) -> int:
    """Return how many staged samples of a stream have an annotation, or a caption."""
    chunks = (
        chunk
        for slice_folder in sorted(folder.glob("slice-*"))
        for chunk in _chunks(slice_folder, read_json(slice_folder / SLICE_FILE)["chunks"])
    )
    return sum(read_json(chunk.with_suffix(".json"))[what] for chunk in chunks)


def _chunks(slice_folder: Path, count: int) -> list[Path]:
    """Return the paths of the first chunks of a slice, without the endings of their files."""
    return [slice_folder / f"chunk-{number:05d}" for number in range(count)]


def _names(chunk: Path) -> list[str]:
    """Return the names of the files of a chunk, the record last."""
    return [f"{chunk.name}.{ending}" for ending in (*(f"{modality}.tar" for modality in STAGED), "json")]


def _is_staged(slice_folder: Path) -> bool:
    """Return whether a slice is complete and unchanged."""
    if not is_intact(slice_folder, SLICE_FILE, remedy=REMEDY):
        return False
    chunks = _chunks(slice_folder, read_json(slice_folder / SLICE_FILE)["chunks"])
    return is_intact(slice_folder, *(name for chunk in chunks for name in _names(chunk)), remedy=REMEDY)


def _stage_slice(part: SourceSlice, rules: StagingRules, folder: Path) -> None:
    """Clean one slice in chunks; complete chunks are skipped."""
    number = 0
    items = progress(part.read(), f"cleaning {part.name}", unit="image")
    for first in items:
        raws = chain([first], islice(items, rules.chunk_size - 1))  # one at a time: photographs have megabytes
        chunk = folder / f"chunk-{number:05d}"
        if is_intact(folder, *_names(chunk), remedy=REMEDY):
            deque(raws, maxlen=0)
        else:
            _write_chunk(chunk, map(rules.apply, raws), rules)
        number += 1
    write_recorded_json(folder, SLICE_FILE, {"chunks": number, "name": part.name})


def _write_chunk(chunk: Path, results: Iterable[CleanSample | Drop], rules: StagingRules) -> None:
    """Write the tars of a chunk, its record, and then the digests of all of them, which complete it."""
    kept: dict[str, CleanSample] = {}
    drops: list[Drop] = []
    for result in results:
        if isinstance(result, Drop):
            drops.append(result)
        elif result.key in kept:
            drops.append(Drop(result.key, "duplicate key"))
        else:
            kept[result.key] = result
            drops += result.drops
    images = ((key, codecs.encode_image(sample.rgb_HW3, *rules.encoding)) for key, sample in kept.items())
    stored = ((key, codecs.image_extension(content), content) for key, content in images)
    write_members(chunk.with_suffix(".rgb.tar"), stored)
    captions = ((key, codecs.extension("caption", sample.caption), sample.caption) for key, sample in kept.items())
    write_members(
        chunk.with_suffix(".caption.tar"), ((key, kind, codecs.encode("caption", text)) for key, kind, text in captions)
    )
    notes = {key: rules.annotations.read(sample.metadata) for key, sample in kept.items()}
    write_members(
        chunk.with_suffix(f".{ANNOTATIONS}.tar"),
        ((key, "json", codecs.encode(ANNOTATIONS, note)) for key, note in notes.items()),
    )
    record = ChunkRecord(
        digests=tuple(sample.digest for sample in kept.values()),
        drops=tuple(StagedDrop(name=printable(drop.name), reason=drop.reason, what=drop.what) for drop in drops),
        annotated=sum(map(bool, notes.values())),
        captioned=sum(bool(sample.caption) for sample in kept.values()),
        keys=tuple(kept),
        hashes=tuple(perceptual_hash(sample.rgb_HW3) if rules.hashed else None for sample in kept.values()),
        images=tuple(array_facts(sample.rgb_HW3) for sample in kept.values()),
    )
    write_json(chunk.with_suffix(".json"), record.model_dump(mode="json"))
    record_digests(chunk.parent, *_names(chunk))
