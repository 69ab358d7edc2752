"""Filling of shards from staged samples: unique keys and images, one shard for each full set of samples of a split."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.captions import is_list
from fourfold.data.codecs import image_extension
from fourfold.data.distinct import TextSet
from fourfold.data.facts import content_facts, facts_of
from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.ingestion.staging import StagedSample
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import store_of
from fourfold.data.shards import shard_name, write_members


class ShardFiller:
    """Collects the samples of each split and writes a shard whenever one is full. Shards that exist are not written again.

    Which keys and images were seen is on disk; in memory are a cache of that, the samples of one shard for each split, and
    the keys of one part.

    Args:
        root: the folder of the shard set.
        samples_per_shard: of each split.
        modalities: that are written.
        scratch: a folder for temporary files.
    """

    def __init__(self, root: Path, samples_per_shard: int, modalities: Sequence[str], scratch: Path) -> None:
        self.root, self.samples_per_shard = root, samples_per_shard
        self.resumed, self.store = ResumedShards(root, modalities), store_of(root)
        self.keys, self.digests = TextSet(scratch), TextSet(scratch)
        self.part, self.keys_of_part = (
            "",
            set[str](),
        )  # the slice that is read, e.g. an archive, and its keys as they stand there
        # (split, source) → samples of its next shard; the source is "" unless there are several
        self.waiting: dict[tuple[str, str], list[StagedSample]] = defaultdict(list)
        self.num_shards: Counter[tuple[str, str]] = Counter()

    def unique(self, sample: StagedSample) -> StagedSample | str:
        """Return a sample under a key that no other has, or the reason why it is a duplicate of one that was added before.

        Archives of several crawls count from 0 each: another image with the key of another archive gets a new key that
        a hash of both names completes. Within one archive a key cannot be used twice.
        """
        if sample.part != self.part:
            self.part, self.keys_of_part = sample.part, set()
        if sample.digest in self.digests:
            return "duplicate key" if sample.key in self.keys else "duplicate image"
        key = sample.key
        if key in self.keys and key not in self.keys_of_part:
            key = safe_key(f"{sample.part}/{key}")
        if key in self.keys:
            return "duplicate key"
        self.keys_of_part.add(sample.key)
        return replace(sample, key=key)

    def add(self, sample: StagedSample, split: str, source: str = "") -> None:
        """Add a sample to a split; `source` names one of several sources, which have their own shards."""
        self.note(sample)
        self.waiting[split, source].append(sample)
        if len(self.waiting[split, source]) == self.samples_per_shard:
            self._write(split, source)

    def note(self, sample: StagedSample) -> None:
        """Take note of a sample without storing it: later ones are compared with it."""
        self.keys.add(sample.key)
        self.digests.add(sample.digest)

    def finish(self) -> None:
        """Write the last shard of each split and source."""
        for split, source in sorted(self.waiting):
            self._write(split, source)

    def _write(self, split: str, source: str) -> None:
        name, samples = shard_name(self.num_shards[split, source], source), self.waiting.pop((split, source))
        columns = {
            "rgb": [(sample.key, image_extension(sample.image), sample.image) for sample in samples],
            "caption": [(sample.key, "json" if is_list(sample.caption) else "txt", sample.caption) for sample in samples],
            ANNOTATIONS: [(sample.key, "json", sample.annotations) for sample in samples],
        }
        images = [{"key": sample.key, **content_facts(sample.image), **sample.facts} for sample in samples]
        for modality in self.resumed.missing(split, name):
            members = columns[modality]
            facts = images if modality == "rgb" else [{"key": key, **facts_of(modality, text)} for key, _, text in members]
            write_members(self.root / split / modality / name, members, facts, store=self.store)
        self.num_shards[split, source] += 1
