"""Staging: resumable cleaning of a stream, chunk by chunk.

A chunk is a tar of images and a record of the rest. It is complete once the digests of both are recorded, and a complete chunk
is cleaned again only if its files changed since. The ingestion assigns splits, removes duplicates and fills shards from the
staged chunks in order, while later slices are cleaned. That is cheap and a pure function of the staged data, so the resulting
bytes do not depend on interruptions. Memory is bounded by one chunk of encoded samples.
"""

import hashlib
import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fourfold.configuration import Config
from fourfold.data import codecs
from fourfold.data.annotations import AnnotationConfig
from fourfold.data.facts import Fact, array_facts
from fourfold.data.ingestion.cleaning import CleanSample, clean
from fourfold.data.ingestion.filters import FilterConfig, broken
from fourfold.data.ingestion.images import CleaningConfig, StorageConfig
from fourfold.data.ingestion.near_duplicates import perceptual_hash
from fourfold.data.ingestion.sources import Drop, RawSample, SampleStream, SourceSlice
from fourfold.data.ingestion.sources.files import printable
from fourfold.data.shards import read_members, write_tar
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.digests import is_intact, record_known_digests, write_recorded_json
from fourfold.local_workers import results_of
from fourfold.progress import progress
from fourfold.storage import read_json, write_bytes

SLICE_FILE = "slice.json"
IMAGES, RECORD = ".tar", ".json"  # the endings of the files of a chunk
REMEDY = "Cleaning it again."


class StagedDrop(Config):
    """The stored form of a `Drop`."""

    name: str
    reason: str
    what: str


@dataclass(frozen=True)
class StagedSample:
    """One cleaned sample, encoded as it will be stored in its shard.

    Attributes:
        key: of the sample.
        image: stored bytes; empty in an outline.
        caption: stored bytes; empty where there is none.
        digest: SHA-256 of the image. Equal pixels are stored as equal bytes.
        part: name of its slice, e.g. of its archive.
        annotations: see `fourfold.data.annotations`.
        hash: perceptual, see `near_duplicates`.
        facts: about the image before it is compressed, see `fourfold.data.facts`.
    """

    key: str
    image: bytes
    caption: bytes
    digest: str
    part: str = ""
    annotations: dict[str, Any] = field(default_factory=dict)
    hash: int | None = None
    facts: Fact = field(default_factory=dict)


class ChunkRecord(Config):
    """What was cleaned in one chunk: of each kept sample, in the order of the tar beside the record, and the drops.

    `captions` are as they are stored; `digests` those of `StagedSample`; `hashes` perceptual ones (see `near_duplicates`), None
    where none is needed; `images` the facts about the images.
    """

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    annotations: tuple[dict[str, Any], ...]
    digests: tuple[str, ...]
    hashes: tuple[int | None, ...]
    images: tuple[dict[str, Any], ...]
    drops: tuple[StagedDrop, ...]

    def samples(self, images: Iterable[bytes], part: str) -> Iterator[StagedSample]:
        """Yield the samples with their images, of the slice `part`."""
        rows = zip(self.keys, images, self.captions, self.digests, self.annotations, self.hashes, self.images, strict=True)
        for key, image, caption, digest, notes, hash_, facts in rows:
            yield StagedSample(key, image, caption.encode(), digest, part, notes, hash_, facts)


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


def stage(
    streams: Mapping[Path, SampleStream], rules: StagingRules, work_split: WorkSplit = NO_SPLIT
) -> Generator[Path, None, None]:
    """Clean all of some streams; yield the folder of each slice, in order, once it is complete. Resumes where a call stopped.

    Slices of local files are cleaned by several processes at once, which changes no byte (`fourfold.local_workers`), also
    while the caller works with those that are complete. Others are read here one after the other: the connections of a
    process do not survive a fork.

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
    waiting = {folder: part for folder, part, _ in share if not _is_staged(folder)}
    local = [(folder, part) for folder, part, is_local in share if is_local and folder in waiting]
    at_once = local if len(local) > 1 else []
    cleaned = progress(results_of(clean_slice, at_once), "cleaning", len(at_once), "part")
    cleaned = chain(list(islice(cleaned, 1)), cleaned)  # forks before the caller or a source opens a connection
    if len(waiting) > len(at_once):
        deque(cleaned, maxlen=0)
    for folder, part, is_local in share:
        if folder in waiting and is_local and at_once:
            next(cleaned, None)
        elif folder in waiting:
            clean_slice((folder, part))
        yield folder
    deque(cleaned, maxlen=0)  # ends the processes


def staged_chunks(slice_folder: Path) -> Iterator[tuple[list[StagedSample], tuple[StagedDrop, ...]]]:
    """Yield the samples and drops of each chunk of a complete slice, in order."""
    for chunk, record, part in _records(slice_folder):
        images = (image for _, image in read_members(chunk.with_suffix(IMAGES)))
        yield list(record.samples(images, part)), record.drops


def staged_outlines(slice_folder: Path) -> Iterator[StagedSample]:
    """Yield the samples of a complete slice, in order, without their images."""
    for _, record, part in _records(slice_folder):
        yield from record.samples([b""] * len(record.keys), part)


def _records(slice_folder: Path) -> Iterator[tuple[Path, ChunkRecord, str]]:
    """Yield path and record of each chunk of a complete slice, and the name of the slice."""
    part = read_json(slice_folder / SLICE_FILE)
    for chunk in _chunks(slice_folder, part["chunks"]):
        yield chunk, ChunkRecord.model_validate(read_json(chunk.with_suffix(RECORD))), part["name"]


def _chunks(slice_folder: Path, count: int) -> list[Path]:
    """Return the paths of the first chunks of a slice, without the endings of their files."""
    return [slice_folder / f"chunk-{number:05d}" for number in range(count)]


def _names(chunk: Path) -> list[str]:
    """Return the names of the files of a chunk."""
    return [f"{chunk.name}{ending}" for ending in (IMAGES, RECORD)]


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
    """Write the tar of a chunk, its record, and then the digests of both, which complete it."""
    kept: dict[str, StagedSample] = {}
    drops: list[Drop] = []
    for result in results:
        if isinstance(result, Drop):
            drops.append(result)
        elif result.key in kept:
            drops.append(Drop(result.key, "duplicate key"))
        else:
            kept[result.key] = _encoded(result, rules)
            drops += result.drops
    samples = kept.values()
    members = ((one.key, codecs.image_extension(one.image), one.image) for one in samples)
    images_sha256 = write_tar(chunk.with_suffix(IMAGES), members)
    record = ChunkRecord(
        keys=tuple(kept),
        captions=tuple(one.caption.decode() for one in samples),
        annotations=tuple(one.annotations for one in samples),
        digests=tuple(one.digest for one in samples),
        hashes=tuple(one.hash for one in samples),
        images=tuple(one.facts for one in samples),
        drops=tuple(StagedDrop(name=printable(drop.name), reason=drop.reason, what=drop.what) for drop in drops),
    )
    # without an indent, with which Python's encoder takes three times as long
    content = json.dumps(record.model_dump(mode="json"), sort_keys=True, allow_nan=False).encode()
    write_bytes(chunk.with_suffix(RECORD), content)
    found = (images_sha256, hashlib.sha256(content).hexdigest())
    record_known_digests(chunk.parent, dict(zip(_names(chunk), found, strict=True)))


def _encoded(sample: CleanSample, rules: StagingRules) -> StagedSample:
    """Return a sample as it is stored: JPEG takes a tenth of the memory of pixels."""
    image = codecs.encode_image(sample.rgb_HW3, *rules.encoding)
    return StagedSample(
        sample.key,
        image,
        codecs.encode("caption", sample.caption),
        hashlib.sha256(image).hexdigest(),
        annotations=rules.annotations.read(sample.metadata),
        hash=perceptual_hash(sample.rgb_HW3) if rules.hashed else None,
        facts=array_facts(sample.rgb_HW3),
    )
