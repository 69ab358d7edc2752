"""Manifests: the content of the shards of one modality of a split, and the check that modalities are aligned."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fourfold.configuration import Config
from fourfold.data import tars
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import read_json, write_json

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"


class ShardInfo(Config):
    """Entry of one shard in a manifest; `keys` are in the order of the tar."""

    name: str
    sha256: str
    bytes: int
    samples: int
    keys: tuple[str, ...]


class Manifest(Config):
    """The shards of one modality of a split."""

    schema_version: int = SCHEMA_VERSION
    modality: str
    shards: tuple[ShardInfo, ...]
    class_table: ClassTable | None = None  # of class ids; absent from the file where there is none

    def keys_by_shard(self) -> dict[str, tuple[str, ...]]:
        """Return the keys of each shard, in order."""
        return {shard.name: shard.keys for shard in self.shards}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the shards in `folder` atomically."""
    write_json(folder / MANIFEST_FILE, manifest.model_dump(mode="json", exclude_none=True))


@lru_cache(maxsize=256)
def read_manifest(path: Any, _version: str) -> Manifest:
    """Return the manifest at `path` (a `Path` or `UPath`); it is parsed once for each `_version` of the file.

    Raises:
        ValueError: the file is not a manifest, or has another schema version.
    """
    try:
        manifest = Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a shard manifest: {error}. Run the stage that writes it again.") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {manifest.schema_version}; allowed: {SCHEMA_VERSION}. Run its stage again."
        )
    return manifest


def describe(path: Path, content: bytes, keys: tuple[str, ...]) -> ShardInfo:
    """Return the manifest entry of a shard with this content."""
    sha256 = hashlib.sha256(content).hexdigest()
    return ShardInfo(name=path.name, sha256=sha256, bytes=len(content), samples=len(keys), keys=keys)


def survey(folder: Path, modality: str, class_table: ClassTable | None = None) -> Manifest:
    """Return the manifest of the shards in `folder`, read one at a time."""
    shards = []
    for path in sorted(folder.glob("shard-*.tar")):
        content = path.read_bytes()
        shards.append(describe(path, content, tuple(key for key, _ in tars.members(path, content))))
    return Manifest(modality=modality, shards=tuple(shards), class_table=class_table)


def require_equal_keys(wanted: Mapping[str, tuple[str, ...]], found: Mapping[str, tuple[str, ...]], where: str) -> None:
    """Check that two modalities have the same keys in the same shards.

    Raises:
        ValueError: they differ; the message names the first shard and the first key.
    """
    if list(wanted) != list(found):
        odd = sorted(set(wanted) ^ set(found))
        raise ValueError(f"{where} does not have the same shards as the other modalities of its split: {', '.join(odd[:5])}.")
    for name, keys in wanted.items():
        if keys == found[name]:
            continue
        pairs = zip((*keys, None), (*found[name], None), strict=False)
        index, (key, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise ValueError(f"{where}, {name}: not aligned with the other modalities, sample {index} is {other!r}, not {key!r}.")
