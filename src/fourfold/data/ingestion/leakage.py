"""Leakage: images of `train` that are near-duplicates of images on which models are validated or tested."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.ingestion.drops import NUM_EXAMPLES
from fourfold.data.ingestion.images import CleaningConfig, Unusable, clean_image
from fourfold.data.ingestion.near_duplicates import DISTANCE, MAX_DISTANCE, HashIndex, perceptual_hash
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import IMAGE_EXTENSIONS, FilesConfig
from fourfold.data.ingestion.sources.listing import Listing, list_files

LEAK = "near-duplicate of an evaluation image"
ENDINGS = tuple(f".{extension}" for extension in sorted(IMAGE_EXTENSIONS))


class LeakageConfig(Config):
    """How near-duplicates are found, and what becomes of those in `train`."""

    max_distance: int = Field(DISTANCE, ge=0, le=MAX_DISTANCE)  # bits of 64 in which the hashes of near-duplicates differ
    remove: bool = True  # from `train`; False: they are only counted and named
    against: tuple[str, ...] = ()  # folders of images of further evaluation sets, e.g. of benchmarks


class Leaks:
    """Counts the images of `train` that are near to an evaluation image."""

    def __init__(self, config: LeakageConfig, index: HashIndex) -> None:
        self._config, self._index = config, index
        self._found = 0
        self._examples: list[str] = []

    def removes(self, key: str, hash_: int | None) -> bool:
        """Count an image if it leaks, and return whether it is to be removed."""
        if hash_ is None or not self._index.has_near(hash_):
            return False
        self._found += 1
        if len(self._examples) < NUM_EXAMPLES:
            self._examples.append(key)
        return self._config.remove

    def is_removed(self, hash_: int | None) -> bool:
        """Return whether an image with this hash is to be removed, without counting it."""
        return self._config.remove and hash_ is not None and self._index.has_near(hash_)

    def report(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
        return {
            "found": self._found,
            "removed": self._config.remove,
            "examples": self._examples,
            "max_distance": self._config.max_distance,
            "evaluation_images": len(self._index),
        }


def digest_of_images(path: str) -> str:
    """Return a digest of the names and sizes of the images of a further evaluation set; raises ValueError without any."""
    listing, config = _list(path)
    return digest_and_version(listing.root, listing.files, config, None)[0]


def hashes_of_images(path: str, cleaning: CleaningConfig, image_size: int) -> Iterator[int]:
    """Yield the hashes of the images of a further evaluation set; what cannot be read cannot leak either."""
    listing, config = _list(path)
    for file in listing.files:
        with file.open("rb") as stream:
            content = stream.read(config.max_file_bytes)
        try:
            found = perceptual_hash(clean_image(content, cleaning, image_size))
        except Unusable:
            continue
        if found is not None:
            yield found


def _list(path: str) -> tuple[Listing, FilesConfig]:
    config = FilesConfig(kind="folder", path=path)
    return list_files(config, ENDINGS, "sample", ()), config
