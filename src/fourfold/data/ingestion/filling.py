"""Filling of shards from staged samples: unique keys and images, one shard for each full set of samples of a split."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fourfold.data import codecs
from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.captions import is_list
from fourfold.data.distinct import TextSet
from fourfold.data.facts import Fact, facts_of
from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.ingestion.staging import StagedSample
from fourfold.data.manifests import WrittenShard
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import store_of
from fourfold.data.shards import shard_name, write_members
from fourfold.modalities import SOURCE_LABELS
from fourfold.storage import read_json

Members = Sequence[tuple[str, str, bytes]]  # key, extension, stored bytes


@dataclass(frozen=True)
class Filled:
    """What shards were filled with: the modalities, and by split, modality and name the shards that were written."""

    modalities: tuple[str, ...]
    written: Mapping[str, Mapping[str, Mapping[str, WrittenShard]]]


class ShardFiller:
    """Collects the samples of each split and writes a shard whenever one is full. Shards that exist are not written again.

    Which keys and images were seen is on disk; in memory are a cache of that, the samples of one shard for each split, the keys
    of one part, and the entry of each shard in its manifest. Annotations wait on disk until it is known whether any sample has
    one.

    Args:
        root: the folder of the shard set.
        samples_per_shard: of each split.
        scratch: a folder for temporary files.
    """

    def __init__(self, root: Path, samples_per_shard: int, scratch: Path) -> None:
        self.root, self.samples_per_shard = root, samples_per_shard
        self.resumed, self.store = ResumedShards(root, (*SOURCE_LABELS, ANNOTATIONS)), store_of(root)
        self.notes = scratch / "notes"  # annotations by shard, `<split>/<name of the shard>`: JSON, [[key, annotations], ...]
        self.has_annotations = False
        self.keys, self.digests = TextSet(scratch), TextSet(scratch)
        self.part = ""  # the slice that is read, e.g. an archive
        self.keys_of_part: set[str] = set()  # as they stand there
        # (split, source) → samples of its next shard; the source is "" unless there are several
        self.waiting: dict[tuple[str, str], list[StagedSample]] = defaultdict(list)
        self.num_shards: Counter[tuple[str, str]] = Counter()
        self.written: dict[str, dict[str, dict[str, WrittenShard]]] = defaultdict(lambda: defaultdict(dict))

    def close(self) -> None:
        """Remove the temporary files of the keys and images that were seen."""
        self.keys.close()
        self.digests.close()

    def unique(self, sample: StagedSample) -> StagedSample | str:
        """Return a sample under a key that no other has, or the reason why it is a duplicate of one that was added before.

        Archives of several crawls count from 0 each: another image with the key of another archive gets a new key that
        a hash of both names completes. Within one archive a key cannot be used twice.
        """
        if sample.part != self.part:
            self.part, self.keys_of_part = sample.part, set()
        is_used = sample.key in self.keys
        if sample.digest in self.digests:
            return "duplicate key" if is_used else "duplicate image"
        unique = sample
        if is_used:
            unique = replace(sample, key=safe_key(f"{sample.part}/{sample.key}"))
            if sample.key in self.keys_of_part or unique.key in self.keys:
                return "duplicate key"
        self.keys_of_part.add(sample.key)
        return unique

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

    def finish(self) -> Filled:
        """Write the last shard of each split and source, and all annotations."""
        for split, source in sorted(self.waiting):
            self._write(split, source)
        if not self.has_annotations:
            return Filled(SOURCE_LABELS, self.written)
        for path in sorted(self.notes.glob("*/*")):
            notes = [(key, "json", codecs.encode(ANNOTATIONS, note)) for key, note in read_json(path)]
            self._write_members(path.parent.name, ANNOTATIONS, path.name, notes)
        return Filled((*SOURCE_LABELS, ANNOTATIONS), self.written)

    def _write(self, split: str, source: str) -> None:
        name, samples = shard_name(self.num_shards[split, source], source), self.waiting.pop((split, source))
        images = [(one.key, codecs.image_extension(one.image), one.image) for one in samples]
        facts = [{"key": one.key, "bytes": len(one.image), "sha256": bytes.fromhex(one.digest), **one.facts} for one in samples]
        self._write_members(split, "rgb", name, images, facts)
        captions = [(one.key, "json" if is_list(one.caption) else "txt", one.caption) for one in samples]
        self._write_members(split, "caption", name, captions)
        self.has_annotations |= any(one.annotations for one in samples)
        notes = self.notes / split / name
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(json.dumps([[one.key, one.annotations] for one in samples]))
        self.num_shards[split, source] += 1

    def _write_members(
        self, split: str, modality: str, name: str, members: Members, facts: Sequence[Fact] | None = None
    ) -> None:
        if self.resumed.is_missing(split, modality, name):
            rows = facts or [{"key": key, **facts_of(modality, content)} for key, _, content in members]
            path = self.root / split / modality / name
            self.written[split][modality][name] = write_members(path, members, rows, store=self.store)
