"""Ingestion: every source goes through the same cleaning into aligned shards, and every loss is counted.

A source gives streams of raw samples. A stream has a fixed split, or its samples go to `train`, `val` and `test` by a hash of
the key. If the source has exact labels, they are written beside the shards as truth, for every split except `train`.
"""

import errno
import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.ingestion.cleaning import CleaningConfig, split_of
from fourfold.data.ingestion.drops import Tally, check_drops, loss_report
from fourfold.data.ingestion.sources import (
    SOURCES,
    AnySourceConfig,
    SampleStream,
    Source,
    SourceConfig,
    SourceContext,
    TruthTarget,
)
from fourfold.data.ingestion.sources.files import FilesConfig
from fourfold.data.ingestion.staging import StagedSample, stage, staged_chunks
from fourfold.data.shards import ShardSet, finish_split, missing_columns, shard_name, write_members
from fourfold.modalities import SOURCE_LABELS
from fourfold.reuse import SUPERSEDED_FOLDER, Fingerprint, claim, fingerprint
from fourfold.storage import read_json, write_json

logger = logging.getLogger(__name__)

HASHED_SPLITS = ("train", "val", "test")  # of a stream without a fixed split; later stages need all three
SPLIT_WITHOUT_TRUTH = "train"  # models learn from what labelers predict, never from exact labels
REPORT_FILE = "ingestion_report.json"
STAGING = ".staging"
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class IngestionConfig(Config):
    """Settings of ingestion: the source, what its samples must be like, and the layout of the shards."""

    source: AnySourceConfig  # `kind` names a registered source; each has its own settings
    supplement: AnySourceConfig | None = None  # a second source, for the splits that `source` does not provide
    cleaning: CleaningConfig = CleaningConfig()  # what a sample must be like to be kept
    image_size: int = Field(64, ge=8, le=1024)  # pixels, square
    val_share: float = Field(0.05, gt=0, lt=0.5)  # of the keys of a stream without a fixed split
    test_share: float = Field(0.05, gt=0, lt=0.5)  # as val_share
    samples_per_shard: int = Field(250, ge=1, le=10_000)  # of each modality
    max_drop_share: float = Field(0.2, ge=0, le=1)  # of the samples of a stream, and of its archives; more is an error

    @model_validator(mode="after")
    def _sizes_agree(self) -> "IngestionConfig":
        for name, source in (("source", self.source), ("supplement", self.supplement)):
            size = source.fixed_image_size() if source else None
            if size is None:
                continue
            if size != self.image_size:
                raise ValueError(f"{name}.image_size ({size}) must equal image_size ({self.image_size}).")
            if self.cleaning.min_side > size:
                raise ValueError(f"cleaning.min_side ({self.cleaning.min_side}) would drop every image of {size} pixels.")
        return self


@dataclass(frozen=True)
class OpenedSource:
    """A source with its settings and the streams that it gives."""

    source: Source
    config: SourceConfig
    streams: Sequence[SampleStream]

    @property
    def splits(self) -> set[str]:
        """Names of the splits that the streams provide."""
        return {split for s in self.streams for split in ([s.split] if s.split else HASHED_SPLITS)}


def ingest(config: IngestionConfig, seed: int, folder: Path) -> ShardSet:
    """Read or render the source, clean it, split it and shard it.

    Writes `shards/`, `truth/` and the report below `folder`, and in `crawl/` what a source generates. An interrupted call is
    resumed by the next one with equal arguments; the resulting bytes are the same.

    Args:
        config: what to ingest.
        seed: for sources that generate their samples.
        folder: the output folder; the source must not be inside.

    Returns:
        The shards.

    Raises:
        ValueError: the source is wrong, more than `max_drop_share` was dropped, a split got no sample, or the folder cannot be
            written.
    """
    with _explain_os_errors(folder):
        # 1) Open the sources; rendered ones are rendered here
        opened = _open_sources(config, seed, folder)
        streams = [stream for source in opened for stream in source.streams]
        inputs = {stream.name: stream.digest for stream in streams}
        sources = [source.source for source in opened]
        work = fingerprint(__name__, inputs=inputs, uses=sources, config=config, seed=seed)
        shards = ShardSet(folder / "shards")
        if _is_finished(folder, shards, work):
            return shards

        # 2) Clean every stream into staging, then fill the shards
        claim(shards.root, work)
        for stream in streams:
            stage(stream, config.cleaning, config.image_size, config.samples_per_shard, _staging(shards, stream))
        tallies = _fill_shards(streams, config, shards)
        _check_splits(config, shards)
        for split in _split_folders(shards.root):
            finish_split(shards.root, split, SOURCE_LABELS)

        # 3) Write the truth of the samples that were kept, then the report, which marks the work as finished
        _write_truth(opened, shards, config, seed, folder / "truth")
        write_json(folder / REPORT_FILE, {"fingerprint": work.digest, **loss_report(shards, tallies)})
        shutil.rmtree(shards.root / STAGING)
        return shards


def ingestion_report(folder: Path) -> dict[str, Any]:
    """Return what `ingest` recorded about its losses: counts and drops by reason, in all and by stream."""
    return read_json(folder / REPORT_FILE)


def open_truth(folder: Path) -> ShardSet:
    """Return the exact labels that `ingest` wrote; empty where no source has any."""
    return ShardSet(folder / "truth")


def _open_sources(config: IngestionConfig, seed: int, folder: Path) -> list[OpenedSource]:
    """Open the source and its supplement; remove from `folder/crawl` what belongs to other settings."""
    crawl = folder / "crawl"
    opened: list[OpenedSource] = []
    for source_config in (config.source, config.supplement):
        if source_config is None:
            continue
        _require_path_outside(source_config, folder)
        source = SOURCES.get(source_config.kind)
        taken = {split for earlier in opened for split in earlier.splits}
        one = OpenedSource(source, source_config, source.open(source_config, SourceContext(seed, crawl, taken)))
        if both := sorted(taken & one.splits):
            raise ValueError(
                f"ingestion.supplement (kind {source_config.kind!r}) provides {', '.join(both)}, which ingestion.source "
                "provides already. Remove the supplement, or use one with other splits."
            )
        logger.info("Source: %s.", source.title)
        opened.append(one)
    _remove_others(crawl, [stream.name for source in opened for stream in source.streams])
    return opened


def _is_finished(folder: Path, shards: ShardSet, work: Fingerprint) -> bool:
    """Return whether an earlier run finished this work; if its shards were damaged since, clear them and return False."""
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
    shutil.rmtree(shards.root / STAGING, ignore_errors=True)  # the run may have been killed between report and clean-up
    return True


def _fill_shards(streams: list[SampleStream], config: IngestionConfig, shards: ShardSet) -> dict[str, Tally]:
    """Copy staged samples into the shards of their splits, without duplicates, and check how much was lost."""
    filler = _ShardFiller(shards.root, config.samples_per_shard)
    shares = {"val": config.val_share, "test": config.test_share}
    tallies = {stream.name: Tally() for stream in streams}
    for stream in streams:
        tally = tallies[stream.name]
        for samples, drops in staged_chunks(_staging(shards, stream)):
            for drop in drops:
                tally.drop(drop.name, drop.reason, drop.what)
            for sample in samples:
                if duplicate := filler.duplicate(sample):
                    tally.drop(sample.key, duplicate)
                else:
                    tally.kept += 1
                    filler.add(sample, stream.split or split_of(sample.key, shares))
        check_drops(tally, stream, config.max_drop_share)
    filler.finish()
    return tallies


class _ShardFiller:
    """Collects the samples of each split and writes a shard whenever one is full. Shards that exist are not written again."""

    def __init__(self, root: Path, samples_per_shard: int) -> None:
        self.root, self.samples_per_shard = root, samples_per_shard
        self.keys: set[str] = set()
        self.digests: set[str] = set()
        self.waiting: dict[str, list[StagedSample]] = defaultdict(list)  # split → samples of its next shard
        self.num_shards: Counter[str] = Counter()  # by split

    def duplicate(self, sample: StagedSample) -> str | None:
        """Return the reason if the key or the pixels of a sample were added before, to any split; otherwise None."""
        if sample.key in self.keys:
            return "duplicate key"
        return "duplicate image" if sample.digest in self.digests else None

    def add(self, sample: StagedSample, split: str) -> None:
        """Add a sample to a split."""
        self.keys.add(sample.key)
        self.digests.add(sample.digest)
        self.waiting[split].append(sample)
        if len(self.waiting[split]) == self.samples_per_shard:
            self._write(split)

    def finish(self) -> None:
        """Write the last shard of each split."""
        for split in sorted(self.waiting):
            self._write(split)

    def _write(self, split: str) -> None:
        name, samples = shard_name(self.num_shards[split]), self.waiting.pop(split)
        columns = {
            "rgb": [(sample.key, "png", sample.png) for sample in samples],
            "caption": [(sample.key, "txt", sample.caption) for sample in samples],
        }
        for modality in missing_columns(self.root, split, name, SOURCE_LABELS):
            write_members(self.root / split / modality / name, columns[modality])
        self.num_shards[split] += 1


def _write_truth(opened: list[OpenedSource], shards: ShardSet, config: IngestionConfig, seed: int, truth: Path) -> None:
    """Write the exact labels of every kept sample whose source has them, except for the training split."""
    exact = {split: one for one in reversed(opened) if one.source.has_truth for split in one.splits}
    splits = [split for split in shards.splits() if split in exact and split != SPLIT_WITHOUT_TRUTH]
    _remove_others(truth, splits)
    for split in splits:
        target = TruthTarget(truth, split, shards.keys(split), config.samples_per_shard)
        exact[split].source.write_truth(exact[split].config, seed, target)


def _check_splits(config: IngestionConfig, shards: ShardSet) -> None:
    """Raise ValueError when a split that later stages need got no sample."""
    empty = sorted(set(HASHED_SPLITS) - set(_split_folders(shards.root)))
    if empty:
        raise ValueError(
            f"No sample fell into {' and '.join(empty)}. Give more images, or larger ingestion.val_share and test_share "
            f"(now {config.val_share}, {config.test_share}); a source that renders its samples needs a size for each split."
        )


def _staging(shards: ShardSet, stream: SampleStream) -> Path:
    return shards.root / STAGING / stream.name


def _split_folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove what other settings left in a folder: everything that is not in `names`."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in names and path.name != SUPERSEDED_FOLDER:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_path_outside(source: SourceConfig, folder: Path) -> None:
    """Raise ValueError when the files of a source are inside the output folder, which is cleared."""
    if isinstance(source, FilesConfig) and (path := Path(source.path).resolve()).is_relative_to(folder.resolve()):
        raise ValueError(f"source.path {path} lies in {folder}, which ingestion clears and fills. Keep the source elsewhere.")


@contextmanager
def _explain_os_errors(folder: Path) -> Iterator[None]:
    """Turn failures of the file system into one clear error."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        reason = error.strerror or type(error).__name__
        advice = "Free some space" if error.errno in OUT_OF_SPACE else "Give this user access to it, or another folder"
        raise ValueError(f"Ingestion cannot work on {where}: {reason}. {advice}; the next run continues.") from error
