"""Ingestion: whatever the source, the same path leads to clean, aligned shards, and every loss is counted.

The scene world is first written as a web crawl would be, and then read like one; its exact truth is kept beside the shards,
for every split but `train`. Real sources get `train`, `val` and `test` by a hash of the key and have no truth; the annotated
and transfer splits still come from the scenes.
"""

import errno
import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.ingestion.cleaning import CleaningConfig, split_of
from fourfold.data.ingestion.drops import Tally, check_drops, loss_report
from fourfold.data.ingestion.sources import SourceConfig, source_digest
from fourfold.data.ingestion.staging import MODALITIES, StagedSample, stage, staged_chunks
from fourfold.data.shards import ShardSet, finish_split, missing_columns, shard_name, write_members
from fourfold.reuse import Fingerprint, claim, fingerprint
from fourfold.scenes.world import ScenesConfig, write_crawl, write_truth
from fourfold.storage import read_json, write_json

logger = logging.getLogger(__name__)

SPLITS_OF_ANY_SOURCE = ("train", "val", "test")
SPLIT_WITHOUT_TRUTH = "train"
REPORT_FILE = "ingestion_report.json"
STAGING = ".staging"
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class IngestionConfig(Config):
    """What is taken in, what must be true of it and how it is laid out."""

    source: SourceConfig = SourceConfig()
    scenes: ScenesConfig = ScenesConfig()
    cleaning: CleaningConfig = CleaningConfig()
    image_size: int = Field(64, ge=8, le=1024)  # pixels, square
    val_share: float = Field(0.05, gt=0, lt=0.5)  # of the keys of a real source
    test_share: float = Field(0.05, gt=0, lt=0.5)
    samples_per_shard: int = Field(250, ge=1, le=10_000)
    max_drop_share: float = Field(0.2, ge=0, le=1)  # of the samples of one source, and of its archives; more is an error

    @model_validator(mode="after")
    def _sizes_agree(self) -> "IngestionConfig":
        if self.scenes.image_size != self.image_size:
            raise ValueError(f"scenes.image_size ({self.scenes.image_size}) must equal image_size ({self.image_size}).")
        if self.cleaning.min_side > self.image_size:
            raise ValueError(
                f"cleaning.min_side ({self.cleaning.min_side}) would drop every scene of {self.image_size} pixels."
            )
        return self


@dataclass(frozen=True)
class Stream:
    """One thing to read; `split` None means that keys decide."""

    name: str
    source: SourceConfig
    split: str | None = None


def ingest(config: IngestionConfig, seed: int, folder: Path) -> ShardSet:
    """Render or read the source, clean it, split it and shard it; returns the shards.

    Writes `crawl/`, `shards/`, `truth/` and the report below `folder`, and goes on where a killed run of the same work stopped;
    the bytes in the end are the same. Raises ValueError for a wrong source, for more than `max_drop_share` of drops, for a
    split that gets nothing, and for a folder that cannot be written.
    """
    with _explained(folder):
        # 1) Render the scenes as a web crawl, and see what there is to read
        _require_source_elsewhere(config.source, folder)
        streams = _streams(config, seed, folder / "crawl")
        inputs = {stream.name: source_digest(stream.source) for stream in streams}
        work = fingerprint(__name__, inputs=inputs, config=config, seed=seed)
        shards = ShardSet(folder / "shards")
        if _is_finished(folder, shards, work):
            return shards

        # 2) Clean every source into staging, then fill the shards
        claim(shards.root, work)
        for stream in streams:
            stage(stream.source, config.cleaning, config.image_size, config.samples_per_shard, _staging(shards, stream))
        tallies = _fill_shards(streams, config, shards)
        _check_splits(config, shards)
        for split in _split_folders(shards.root):
            finish_split(shards.root, split, MODALITIES)

        # 3) Truth for what was kept, then the report, which says that all is done
        _write_truths(shards, config, seed, folder / "truth")
        write_json(folder / REPORT_FILE, {"fingerprint": work.digest, **loss_report(shards, tallies)})
        shutil.rmtree(shards.root / STAGING)
        return shards


def ingestion_report(folder: Path) -> dict[str, Any]:
    """Return what `ingest` wrote about its losses: counts and drops by reason, in all and by source."""
    return read_json(folder / REPORT_FILE)


def open_truth(folder: Path) -> ShardSet:
    """Return the exact truth that `ingest` wrote for the splits that come from scenes."""
    return ShardSet(folder / "truth")


def _streams(config: IngestionConfig, seed: int, crawl: Path) -> list[Stream]:
    """Render what is wanted of the scenes and return everything there is to read, the real source first."""
    real = [] if config.source.kind == "scenes" else [Stream("source", config.source)]
    rendered = [
        split for split, count in config.scenes.num_samples.items() if count and not (real and split in SPLITS_OF_ANY_SOURCE)
    ]
    _remove_others(crawl, rendered)
    for split in rendered:
        write_crawl(crawl, split, seed, config.scenes)
    scenes = [Stream(split, SourceConfig(kind="webdataset", path=str(crawl / split)), split) for split in sorted(rendered)]
    return real + scenes


def _is_finished(folder: Path, shards: ShardSet, work: Fingerprint) -> bool:
    """Return whether an earlier run did this very work to the end; shards damaged since are cleared, to be made again."""
    report, truth = folder / REPORT_FILE, open_truth(folder)
    if not report.exists() or read_json(report).get("fingerprint") != work.digest:
        return False
    try:
        shards.verify()
        truth.verify()
    except ValueError as error:
        logger.warning("%s Ingesting again.", error)
        for root in (shards.root, truth.root):
            shutil.rmtree(root, ignore_errors=True)
        return False
    shutil.rmtree(shards.root / STAGING, ignore_errors=True)  # a run may have been killed while it tidied up
    return True


def _fill_shards(streams: list[Stream], config: IngestionConfig, shards: ShardSet) -> dict[str, Tally]:
    """Copy staged samples into the shards of their splits, without duplicates, and check how much was lost."""
    keys: set[str] = set()
    digests: set[str] = set()
    waiting: dict[str, list[StagedSample]] = defaultdict(list)
    num_shards: Counter[str] = Counter()
    tallies = {stream.name: Tally() for stream in streams}
    shares = {"val": config.val_share, "test": config.test_share}

    def flush(split: str) -> None:
        _write_shard_of(shards.root, split, shard_name(num_shards[split]), waiting.pop(split))
        num_shards[split] += 1

    for stream in streams:
        tally = tallies[stream.name]
        for samples, drops in staged_chunks(_staging(shards, stream)):
            for drop in drops:
                tally.drop(drop.name, drop.reason, drop.what)
            for sample in samples:
                if sample.key in keys or sample.digest in digests:
                    tally.drop(sample.key, "duplicate key" if sample.key in keys else "duplicate image")
                    continue
                keys.add(sample.key)
                digests.add(sample.digest)
                tally.kept += 1
                split = stream.split or split_of(sample.key, shares)
                waiting[split].append(sample)
                if len(waiting[split]) == config.samples_per_shard:
                    flush(split)
        check_drops(tally, stream.source, config.max_drop_share)
    for split in sorted(waiting):
        flush(split)
    return tallies


def _write_shard_of(root: Path, split: str, name: str, samples: list[StagedSample]) -> None:
    columns = {
        "rgb": [(sample.key, "png", sample.png) for sample in samples],
        "caption": [(sample.key, "txt", sample.caption) for sample in samples],
    }
    for modality in missing_columns(root, split, name, MODALITIES):
        write_members(root / split / modality / name, columns[modality])


def _write_truths(shards: ShardSet, config: IngestionConfig, seed: int, truth: Path) -> None:
    """Write the exact truth of every kept scene, except for the split that must do without."""
    real = config.source.kind != "scenes"
    splits = [s for s in shards.splits() if s != SPLIT_WITHOUT_TRUTH and not (real and s in SPLITS_OF_ANY_SOURCE)]
    _remove_others(truth, splits)
    for split in splits:
        write_truth(truth, split, shards.keys(split), seed, config.scenes, config.samples_per_shard)


def _check_splits(config: IngestionConfig, shards: ShardSet) -> None:
    """Raise ValueError when a split that later stages need got no sample."""
    empty = sorted(set(SPLITS_OF_ANY_SOURCE) - set(_split_folders(shards.root)))
    if empty:
        raise ValueError(
            f"No sample fell into {' and '.join(empty)}. Give more images, or larger ingestion.val_share and test_share "
            f"(now {config.val_share}, {config.test_share}; scenes: ingestion.scenes.num_samples)."
        )


def _staging(shards: ShardSet, stream: Stream) -> Path:
    return shards.root / STAGING / stream.name


def _split_folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _remove_others(folder: Path, names: list[str]) -> None:
    """Remove the sub-folders that other settings left."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_source_elsewhere(source: SourceConfig, folder: Path) -> None:
    if source.path and (inside := Path(source.path).resolve()).is_relative_to(folder.resolve()):
        raise ValueError(f"source.path {inside} lies in {folder}, which ingestion clears and fills. Keep the source elsewhere.")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn failures of the file system into one clear error."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        reason = error.strerror or type(error).__name__
        advice = "Free some space" if error.errno in OUT_OF_SPACE else "Give this user access to it, or another folder"
        raise ValueError(f"Ingestion cannot work on {where}: {reason}. {advice}; the next run continues.") from error
