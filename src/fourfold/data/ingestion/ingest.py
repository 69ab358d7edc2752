"""Ingestion: every source goes through the same cleaning into aligned shards, and every loss is counted.

A source gives streams of raw samples. A stream has a fixed split, or its samples go to `train`, `val` and `test` by a hash of
the key. If the source has exact labels, they are written beside the shards as truth, for every split except `train`.
"""

import errno
import logging
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.annotations import AnnotationConfig
from fourfold.data.ingestion.cleaning import split_of
from fourfold.data.ingestion.croissant import CardConfig
from fourfold.data.ingestion.drops import Tally, check_drops, describe_losses, loss_report
from fourfold.data.ingestion.filling import Filled, ShardFiller
from fourfold.data.ingestion.filters import FilterConfig
from fourfold.data.ingestion.images import CleaningConfig, StorageConfig
from fourfold.data.ingestion.leakage import LeakageConfig, digest_of_images
from fourfold.data.ingestion.look_alikes import LookAlikeRules, LookAlikes, find_look_alikes
from fourfold.data.ingestion.repeats import NearDuplicateConfig
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
from fourfold.data.ingestion.sources.several import each_source
from fourfold.data.ingestion.staging import StagedSample, StagingRules, stage, staged_chunks, staged_outlines
from fourfold.data.ingestion.touched import resume_untouched, warn_of_touched_files
from fourfold.data.shard_store import keep_at
from fourfold.data.shards import ShardSet, finish_split, forget_splits
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.digests import (
    DIGESTS_FILE,
    damage_of,
    forget_digests,
    is_intact,
    record_digests,
    recorded_digests,
    write_recorded_json,
)
from fourfold.reuse import FINGERPRINT_FILE, SUPERSEDED_FOLDER, Fingerprint, claim, fingerprint, renew_fingerprint
from fourfold.storage import PARTIAL_MARK, read_json, write_bytes

logger = logging.getLogger(__name__)

HASHED_SPLITS = ("train", "val", "test")  # of a stream without a fixed split; later stages need all three
SPLIT_WITHOUT_TRUTH = "train"  # models learn from what labelers predict, never from exact labels
REPORT_FILE = "ingestion_report.json"
SET_RECORDS = (f"shards/{DIGESTS_FILE}", f"truth/{DIGESTS_FILE}")
STAGING = ".staging"
OPEN_LOCK = f"{PARTIAL_MARK}open"
NO_TRUTH_FILE = "none.txt"
REMEDY = "Ingest again with `kedro run --pipelines=ingestion`, or restore the folder with `dvc checkout --force`."
SOURCE_FOLDER = ".source"  # versions and digests of the files of a source, of this machine; listed in .dvcignore
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class IngestionConfig(Config):
    """Settings of ingestion: the source, what its samples must be like, and the layout of the shards."""

    source: AnySourceConfig  # `kind` names a registered source; each has its own settings
    supplement: AnySourceConfig | None = None  # a second source, for the splits that `source` does not provide
    cleaning: CleaningConfig = CleaningConfig()  # what a sample must be like to be kept
    annotations: AnnotationConfig = AnnotationConfig()  # which metadata of a sample fine-tuning learns from
    filters: tuple[FilterConfig, ...] = ()  # rules about the metadata; what they remove is no fault of the source
    card: CardConfig = Field(CardConfig(), exclude=True)  # what cards say of the data set; it changes nothing else
    leakage: LeakageConfig | None = None  # near-duplicates between train and evaluation images; None: not looked for
    # near-duplicates within train; None: not looked for
    near_duplicates: NearDuplicateConfig | None = Field(None, exclude_if=lambda value: value is None)
    image_size: int = Field(64, ge=8, le=1024)  # pixels, square
    storage: StorageConfig = StorageConfig()  # how images are stored
    val_share: float = Field(0.05, gt=0, lt=0.5)  # of the keys of a stream without a fixed split
    test_share: float = Field(0.05, gt=0, lt=0.5)  # as val_share
    samples_per_shard: int = Field(250, ge=1, le=10_000)  # of each modality
    max_drop_share: float = Field(0.2, ge=0, le=1)  # of the samples of a stream, and of its archives; more is an error

    @property
    def shares(self) -> dict[str, float]:
        """Share of each split of a stream without a fixed one; the rest is `train`."""
        return {"val": self.val_share, "test": self.test_share}

    def look_alike_rules(self) -> LookAlikeRules:
        """Return which images of `train` are left out because they look like others."""
        return LookAlikeRules(self.leakage, self.near_duplicates, self.cleaning, self.image_size)

    def staging_rules(self) -> StagingRules:
        """Return how raw samples become staged ones."""
        rules = StagingRules(self.cleaning, self.image_size, self.annotations, self.samples_per_shard)
        return replace(rules, filters=self.filters, hashed=self.look_alike_rules().need_all, storage=self.storage)

    @model_validator(mode="after")
    def _filters_have_different_names(self) -> "IngestionConfig":
        names = [one.name for one in self.filters]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"ingestion.filters has two rules of the name {', '.join(twice)}. Rename one of them.")
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> "IngestionConfig":
        for name, source in (("source", self.source), ("supplement", self.supplement)):
            size = source.fixed_image_size() if source else None
            if size is None:
                continue
            if size != self.image_size:
                raise ValueError(f"{name}.image_size ({size}) must equal image_size ({self.image_size}).")
            if self.cleaning.min_side > size:
                raise ValueError(
                    f"cleaning.min_side ({self.cleaning.min_side}) would drop every image of {size} pixels. Lower it."
                )
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


def ingest(
    config: IngestionConfig,
    seed: int,
    folder: Path,
    work_split: WorkSplit = NO_SPLIT,
    *,
    shards_at: str | None = None,
) -> ShardSet:
    """Read or render the source, clean it, split it and shard it.

    Writes `shards/`, `truth/` and the report below `folder`, and in `crawl/` what a source generates. An interrupted call is
    resumed by the next one with equal arguments; the resulting bytes are the same.

    Args:
        config: what to ingest.
        seed: for sources that generate their samples.
        folder: the output folder; the source must not be inside.
        work_split: the share of the source that this process cleans, into files beside those of other shares. A later call for
            the whole source fills the shards.
        shards_at: where the shards are kept, see `keep_at`; by default in `folder`. The truth is always there.

    Returns:
        The shards; none are there yet after a share of the work.

    Raises:
        ValueError: the source is wrong, more than `max_drop_share` was dropped, a split got no sample, or the folder cannot be
            written.
    """
    with _explain_os_errors(folder):
        if not work_split.is_whole:
            _clean_share(config, seed, folder, work_split)
            return ShardSet(folder / "shards")
        # 1) Open the sources; rendered ones are rendered here
        opened = _open_sources(config, seed, folder)
        streams = [stream for source in opened for stream in source.streams]
        work, shards = _fingerprint(opened, config, seed), ShardSet(folder / "shards")
        if _is_finished(folder, shards, work):
            renew_fingerprint(shards.root, work)
            if keep_at(shards.root, shards_at):
                _record_sets(folder)
            if not is_intact(folder, *_truth_fingerprints(folder), remedy="Writing the truth again."):
                _write_truth(opened, shards, config, seed, folder / "truth")
                _record_sets(folder)
            warn_of_touched_files(streams, work.digest, folder / SOURCE_FOLDER)
            _log_losses(folder)
            return shards

        # 2) Clean every stream into staging, then fill the shards
        claim(shards.root, work)
        (folder / OPEN_LOCK).unlink(missing_ok=True)  # of shares that were done earlier
        resume_untouched(streams, work.digest, folder / SOURCE_FOLDER, lambda: _remove_others(shards.root, [FINGERPRINT_FILE]))
        keep_at(shards.root, shards_at)
        staging = {_staging(shards, stream): stream for stream in streams}
        rules, scratch = config.look_alike_rules(), shards.root / STAGING
        scratch.mkdir(parents=True, exist_ok=True)
        with closing(stage(staging, config.staging_rules())) as slices:
            staged: Iterable[Path] = list(slices) if rules.need_all else slices
            outlines = partial(_outlines, streams, staged, config, shards)
            look_alikes = find_look_alikes(rules, outlines, scratch)
            tallies, filled = _fill_shards(streams, staged, config, shards, look_alikes)
        _check_splits(config, shards)
        for split in _split_folders(shards.root):
            finish_split(shards.root, split, filled.modalities, written=filled.written.get(split))

        # 3) Write the truth of the samples that were kept, then the report, which marks the work as finished
        _write_truth(opened, shards, config, seed, folder / "truth")
        _record_sets(folder)
        # the catalog writes this file once more, with equal bytes (tested)
        report = loss_report(shards, tallies) | look_alikes.report()
        write_recorded_json(folder, REPORT_FILE, {"fingerprint": work.digest, **report})
        shutil.rmtree(shards.root / STAGING)
        _log_losses(folder)
        return shards


def _clean_share(config: IngestionConfig, seed: int, folder: Path, work_split: WorkSplit) -> None:
    """Clean a share of the source into staging, as `ingest` does with all of it; other processes clean other shares."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / OPEN_LOCK):  # the first process renders what is rendered, and claims the folder
        opened = _open_sources(config, seed, folder)
        streams = [stream for source in opened for stream in source.streams]
        work, shards = _fingerprint(opened, config, seed), ShardSet(folder / "shards")
        if _is_finished(folder, shards, work):
            (folder / OPEN_LOCK).unlink(missing_ok=True)
            return
        claim(shards.root, work, shared=True)
        resume_untouched(streams, work.digest, folder / SOURCE_FOLDER, lambda: _remove_others(shards.root, [FINGERPRINT_FILE]))
    for _ in stage({_staging(shards, stream): stream for stream in streams}, config.staging_rules(), work_split):
        pass


def _fingerprint(opened: Sequence[OpenedSource], config: IngestionConfig, seed: int) -> Fingerprint:
    inputs = {stream.name: stream.digest for source in opened for stream in source.streams}
    inputs |= {f"leakage.against {path}": digest_of_images(path) for path in (config.leakage or LeakageConfig()).against}
    return fingerprint(__name__, inputs=inputs, uses=[source.source for source in opened], config=config, seed=seed)


def _record_sets(folder: Path) -> None:
    """Record the digests of both shard sets and of the fingerprints of the truth, so that what is lost later is noticed."""
    known = {*SET_RECORDS, *_truth_fingerprints(folder)}
    written = {path.relative_to(folder).as_posix() for path in folder.glob(f"truth/*/{FINGERPRINT_FILE}")}
    there = {name for name in known if (folder / name).is_file()} | written
    record_digests(folder, *sorted(there))
    forget_digests(folder, known - there)


def _truth_fingerprints(folder: Path) -> list[str]:
    """Return the recorded names of the fingerprints that sources wrote beside their truth."""
    return sorted(name for name in recorded_digests(folder) if name.startswith("truth/") and name.endswith(FINGERPRINT_FILE))


def ingestion_report(folder: Path) -> dict[str, Any]:
    """Return what `ingest` recorded about its losses: counts and drops by reason, in all and by stream."""
    _check_own_files(folder)
    return read_json(folder / REPORT_FILE)


def _check_own_files(folder: Path) -> None:
    """Compare the report and the records of both sets with their digests; raises ValueError that names a difference.

    Other files of the folder, such as the data card, are not judged: the code that writes them makes them again.
    """
    record = recorded_digests(folder)
    for name in (REPORT_FILE, *SET_RECORDS):
        if (name == REPORT_FILE or name in record) and (damage := damage_of(folder, name, record)):
            raise ValueError(f"{damage} {REMEDY}")


def _log_losses(folder: Path) -> None:
    logger.info("%s\nAll counts: %s.", describe_losses(ingestion_report(folder)), folder / REPORT_FILE)


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
        fields = config.annotations.fields | {rule.field for rule in config.filters}
        context = SourceContext(seed, crawl, taken, folder / SOURCE_FOLDER, fields)
        one = OpenedSource(source, source_config, source.open(source_config, context))
        if both := sorted(taken & one.splits):
            raise ValueError(
                f"ingestion.supplement (kind {source_config.kind!r}) provides {', '.join(both)}, which ingestion.source "
                "provides already. Remove the supplement, or use one with other splits."
            )
        logger.info("Source: %s.", source.title)
        opened.append(one)
    _remove_others(crawl, [stream.name for source in opened for stream in source.streams])
    return opened


def expected_samples(config: IngestionConfig) -> dict[str, int] | None:
    """Return the number of samples of each split at most, found before anything is read or changed.

    Returns:
        Counts by split; None if a source cannot tell, e.g. tars, whose members are not listed.

    Raises:
        ValueError: a source cannot be opened.
    """
    shares, found = config.shares, dict[str, int]()
    is_known = True  # the other source is still checked if one cannot tell
    for source_config in filter(None, (config.source, config.supplement)):
        hashed: dict[str, int] = {}  # a stream without a fixed split provides these three, if only with no sample

        def split(key: str, hashed: dict[str, int] = hashed) -> str:
            hashed.update(dict.fromkeys(HASHED_SPLITS, 0))
            return split_of(key, shares)

        counts = SOURCES.get(source_config.kind).count(source_config, split)
        if counts is None:
            is_known = False
            continue
        found = hashed | counts | found  # a supplement provides only the splits that the source does not
    return found if is_known else None


def _is_finished(folder: Path, shards: ShardSet, work: Fingerprint) -> bool:
    """Return whether an earlier run finished this work; if its shards were damaged since, clear them and return False."""
    report, truth = folder / REPORT_FILE, open_truth(folder)
    if not is_intact(folder, REPORT_FILE, remedy="Ingesting again.") or read_json(report).get("fingerprint") != work.digest:
        return False
    try:
        _check_own_files(folder)
        shards.verify()
        truth.verify()
    except ValueError as error:
        logger.warning("%s Ingesting again.", error)
        for root in (shards.root, truth.root):
            shutil.rmtree(root, ignore_errors=True)
        return False
    shutil.rmtree(shards.root / STAGING, ignore_errors=True)  # the run may have been killed between report and clean-up
    return True


def _fill_shards(
    streams: Sequence[SampleStream],
    slices: Iterable[Path],
    config: IngestionConfig,
    shards: ShardSet,
    look_alikes: LookAlikes,
) -> tuple[dict[str, Tally], Filled]:
    """Copy staged samples into the shards of their splits, without duplicates, and check how much was lost.

    Args:
        streams: in order.
        slices: the folders of their slices in order, each complete when it is yielded.
        config: what is ingested.
        shards: to fill.
        look_alikes: what is left out.

    Returns:
        What was lost by stream, and what the shards were filled with.
    """
    tallies = {stream.name: Tally() for stream in streams}
    with closing(ShardFiller(shards.root, config.samples_per_shard, shards.root / STAGING)) as filler:
        for stream, folders in _by_stream(streams, slices):
            tally, captioned = tallies[stream.name], 0
            for samples, drops in chain.from_iterable(map(staged_chunks, folders)):
                for drop in drops:
                    tally.drop(drop.name, drop.reason, drop.what)
                for sample in samples:
                    captioned += bool(sample.caption)
                    _fill(filler, sample, stream, config, look_alikes, tally)
            check_drops(tally, stream, config.max_drop_share)
            _check_captions(tally, stream, captioned)
        return tallies, filler.finish()


def _fill(
    filler: ShardFiller,
    sample: StagedSample,
    stream: SampleStream,
    config: IngestionConfig,
    look_alikes: LookAlikes,
    tally: Tally,
) -> None:
    """Add a sample to the shards of its split, or count why it is left out."""
    unique = filler.unique(sample)
    if isinstance(unique, str):
        tally.drop(sample.key, unique)
        return
    split = _split(stream, unique.key, config)
    reason = look_alikes.removal(unique.key, unique.hash) if split == SPLIT_WITHOUT_TRUTH else None
    if reason:
        filler.note(unique)
        tally.drop(unique.key, reason, "removal")
        return
    tally.kept += 1
    filler.add(unique, split, stream.source)


def _outlines(
    streams: Sequence[SampleStream], slices: Iterable[Path], config: IngestionConfig, shards: ShardSet
) -> Iterator[tuple[str, int | None]]:
    """Yield split and perceptual hash of every sample, without exact duplicates."""
    with closing(ShardFiller(shards.root, config.samples_per_shard, shards.root / STAGING)) as filler:
        for stream, folders in _by_stream(streams, slices):
            for outline in chain.from_iterable(map(staged_outlines, folders)):
                unique = filler.unique(outline)
                if not isinstance(unique, str):
                    filler.note(unique)
                    yield _split(stream, unique.key, config), unique.hash


def _split(stream: SampleStream, key: str, config: IngestionConfig) -> str:
    return stream.split or split_of(stream.split_by(key), config.shares)


def _by_stream(streams: Sequence[SampleStream], slices: Iterable[Path]) -> Iterator[tuple[SampleStream, Iterator[Path]]]:
    """Yield each stream with the folders of its slices, out of those of all streams in order."""
    folders = iter(slices)
    for stream in streams:
        yield stream, islice(folders, len(stream.slices))


def _check_captions(tally: Tally, stream: SampleStream, captioned: int) -> None:
    """Raise ValueError when a source has a caption table that fits none of its images."""
    rows = tally.reasons["row"]
    if not captioned and rows:
        reason, count = rows.most_common(1)[0]
        raise ValueError(
            f"No image of {stream.location} has a caption, although there is a caption table: {count} × {reason}, e.g. "
            f"{tally.example(reason)}. Correct the names in the table, or remove it to train without captions."
        )


def _write_truth(opened: list[OpenedSource], shards: ShardSet, config: IngestionConfig, seed: int, truth: Path) -> None:
    """Write the exact labels of every kept sample whose source has them, except for the training split."""
    exact = {split: one for one in reversed(opened) if one.source.has_truth for split in one.splits}
    splits = [split for split in shards.splits() if split in exact and split != SPLIT_WITHOUT_TRUTH]
    _remove_others(truth, [*splits, DIGESTS_FILE])
    forget_splits(truth, keep=splits)
    if not splits:  # an empty folder cannot be told from one that was lost
        write_bytes(truth / NO_TRUTH_FILE, b"The source has no exact labels.\n")
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
    for one in each_source(source).values():
        if not isinstance(one, FilesConfig) or not (path := Path(one.path).resolve()).is_relative_to(folder.resolve()):
            continue
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
    except sqlite3.OperationalError as error:  # of the sets of keys and images that were seen
        raise ValueError(
            f"Ingestion cannot work on {folder}: {error}. Free some space, or give this user access; the next run continues."
        ) from error
