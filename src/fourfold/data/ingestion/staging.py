"""Staging: resumable cleaning of a stream, chunk by chunk.

A chunk is complete once its record exists, and a complete chunk is never cleaned again. Afterward the ingestion assigns splits,
removes duplicates and fills shards from the staged chunks in order. That is cheap and a pure function of the staged data, so
the resulting bytes do not depend on interruptions. Memory is bounded by one chunk of cleaned samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fourfold.configuration import Config
from fourfold.data.ingestion.cleaning import CleaningConfig, CleanSample, clean
from fourfold.data.ingestion.sources import Drop, SampleStream, SourceSlice
from fourfold.data.shards import read_members, write_shard
from fourfold.modalities import SOURCE_LABELS
from fourfold.progress import progress
from fourfold.storage import read_json, write_json

SLICE_FILE = "slice.json"


class StagedDrop(Config):
    """The stored form of a `Drop`."""

    name: str
    reason: str
    what: str


class ChunkRecord(Config):
    """The result of one chunk: digests of the kept samples, in the order of the tars beside the record, and the drops."""

    digests: tuple[str, ...]
    drops: tuple[StagedDrop, ...]


@dataclass(frozen=True)
class StagedSample:
    """One cleaned sample, encoded as it will be stored in its shard."""

    key: str
    png: bytes
    caption: bytes
    digest: str


def stage(stream: SampleStream, cleaning: CleaningConfig, image_size: int, chunk_size: int, folder: Path) -> None:
    """Clean all of a stream into `folder`; resumes where an interrupted call stopped.

    Args:
        stream: the samples to clean.
        cleaning: what a sample must be like.
        image_size: side of the cleaned images in pixels.
        chunk_size: number of items that are recorded, and held in memory, at once.
        folder: the staging folder of this stream.
    """
    for index, part in enumerate(stream.slices):
        slice_folder = folder / f"slice-{index:05d}"
        if not (slice_folder / SLICE_FILE).exists():
            _stage_slice(part, cleaning, image_size, chunk_size, slice_folder)


def staged_chunks(folder: Path) -> Iterator[tuple[list[StagedSample], tuple[StagedDrop, ...]]]:
    """Yield the samples and drops of each staged chunk, in the order of the stream."""
    for slice_folder in sorted(folder.glob("slice-*")):
        for number in range(read_json(slice_folder / SLICE_FILE)["chunks"]):
            chunk = slice_folder / f"chunk-{number:05d}"
            record = ChunkRecord.model_validate(read_json(chunk.with_suffix(".json")))
            pngs, captions = (read_members(chunk.with_suffix(f".{modality}.tar")) for modality in SOURCE_LABELS)
            rows = zip(pngs, captions, record.digests, strict=True)
            yield [StagedSample(key, png, caption, digest) for (key, png), (_, caption), digest in rows], record.drops


def _stage_slice(part: SourceSlice, cleaning: CleaningConfig, image_size: int, chunk_size: int, folder: Path) -> None:
    """Clean one slice in chunks of `chunk_size` items; chunks that have a record are skipped."""
    number = 0
    results: list[CleanSample | Drop] = []
    count = 0
    for count, raw in enumerate(progress(part.read(), f"cleaning {part.name}", unit="image"), 1):
        chunk = folder / f"chunk-{number:05d}"
        if not chunk.with_suffix(".json").exists():
            results.append(raw if isinstance(raw, Drop) else clean(raw, cleaning, image_size))
        if count % chunk_size == 0:
            _write_chunk(chunk, results)
            number, results = number + 1, []
    if count % chunk_size:
        _write_chunk(folder / f"chunk-{number:05d}", results)
        number += 1
    write_json(folder / SLICE_FILE, {"chunks": number, "name": part.name})


def _write_chunk(chunk: Path, results: list[CleanSample | Drop]) -> None:
    """Write the tars of a chunk and then its record, which completes it; does nothing if the record exists."""
    record_path = chunk.with_suffix(".json")
    if record_path.exists():
        return
    kept: dict[str, CleanSample] = {}
    drops: list[Drop] = []
    for result in results:
        if isinstance(result, Drop):
            drops.append(result)
        elif result.key in kept:
            drops.append(Drop(result.key, "duplicate key"))
        else:
            kept[result.key] = result
    write_shard(chunk.with_suffix(".rgb.tar"), ((key, sample.rgb_HW3) for key, sample in kept.items()), "rgb")
    write_shard(chunk.with_suffix(".caption.tar"), ((key, sample.caption) for key, sample in kept.items()), "caption")
    record = ChunkRecord(
        digests=tuple(sample.digest for sample in kept.values()),
        drops=tuple(StagedDrop(name=drop.name, reason=drop.reason, what=drop.what) for drop in drops),
    )
    write_json(record_path, record.model_dump(mode="json"))
