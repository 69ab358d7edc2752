"""Work that resumes in a claimed folder of shards: which shards must still be made."""

import logging
from collections.abc import Sequence
from pathlib import Path

from fourfold.data.facts import facts_path, shard_digest
from fourfold.data.manifests import Manifest, finished_manifest
from fourfold.data.shard_store import ShardStore, is_written, store_of
from fourfold.digests import sha256_file

logger = logging.getLogger(__name__)


class ResumedShards:
    """Finds the shards that a step must still make; the manifests that an earlier run finished are read once.

    Args:
        root: the folder of the shard set, claimed by this work.
        modalities: what the step makes of each shard.
    """

    def __init__(self, root: Path, modalities: Sequence[str]) -> None:
        self.root, self.modalities = root, modalities
        self._finished: dict[tuple[str, str], Manifest | None] = {}

    def missing(self, split: str, name: str) -> list[str]:
        """Return the modalities whose shard `name` is not there.

        A shard that differs from its manifest was damaged after it was finished: it is deleted, so that it is made again. Of
        one in a store the facts are deleted, and writing replaces the damaged object.
        """
        return [modality for modality in self.modalities if self.is_missing(split, modality, name)]

    def is_missing(self, split: str, modality: str, name: str) -> bool:
        """Return whether a modality of shard `name` is not there; a damaged one is deleted, as by `missing`."""
        path, manifest = self.root / split / modality / name, self._manifest(split, modality)
        expected, store = manifest.sha256_by_shard.get(name) if manifest else None, store_of(self.root)
        if not is_written(path, store):
            if expected:
                logger.warning("%s is missing, though it was finished. Making it again.", path)
            return True
        found = expected and self._found(path, expected, store)
        if found != expected:
            at = path if store is None else f"{store.path(str(expected))}, the shard {path},"
            what = f"changed after it was written: SHA-256 {found}" if found else "is missing"
            logger.warning("%s %s, expected %s. Making it again.", at, what, expected)
            (path if store is None else facts_path(path)).unlink()
            return True
        return False

    @staticmethod
    def _found(path: Path, expected: str, store: ShardStore | None) -> str | None:
        """Return the SHA-256 of a finished shard; in a store, of the object that its facts name."""
        if store is None:
            return sha256_file(path)
        named = shard_digest(facts_path(path))
        return store.found(expected) if named == expected else named

    def _manifest(self, split: str, modality: str) -> Manifest | None:
        if (split, modality) not in self._finished:
            self._finished[split, modality] = finished_manifest(self.root, split, modality)
        return self._finished[split, modality]
