"""Work that resumes in a claimed folder of shards: which shards must still be made."""

import logging
from collections.abc import Sequence
from pathlib import Path

from fourfold.data.manifests import Manifest, finished_manifest
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

        A shard that differs from its manifest was damaged after it was finished: it is deleted, so that it is made again.
        """
        return [modality for modality in self.modalities if not self._is_there(split, modality, name)]

    def _is_there(self, split: str, modality: str, name: str) -> bool:
        path, manifest = self.root / split / modality / name, self._manifest(split, modality)
        expected = manifest.sha256_by_shard.get(name) if manifest else None
        if not path.exists():
            if expected:
                logger.warning("%s is missing, though it was finished. Making it again.", path)
            return False
        if expected and (found := sha256_file(path)) != expected:
            logger.warning("%s changed after it was written: SHA-256 %s, expected %s. Making it again.", path, found, expected)
            path.unlink()
            return False
        return True

    def _manifest(self, split: str, modality: str) -> Manifest | None:
        if (split, modality) not in self._finished:
            self._finished[split, modality] = finished_manifest(self.root, split, modality)
        return self._finished[split, modality]
