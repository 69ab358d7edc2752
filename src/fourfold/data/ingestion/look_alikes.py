"""Images of `train` that look like others: like evaluation images (leakage), or like earlier images of `train`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.leakage import LEAK, LeakageConfig, Leaks, hashes_of_images
from fourfold.data.ingestion.near_duplicates import HashIndex
from fourfold.data.ingestion.repeats import REPEAT, NearDuplicateConfig, Repeats

TRAIN = "train"


@dataclass(frozen=True)
class LookAlikeRules:
    """What is looked for; None: not at all.

    Attributes:
        leakage: near-duplicates of evaluation images.
        near_duplicates: near-duplicates of earlier images of `train`.
        cleaning: of the images of further evaluation sets.
        image_size: of these, in pixels.
    """

    leakage: LeakageConfig | None
    near_duplicates: NearDuplicateConfig | None
    cleaning: CleaningConfig
    image_size: int

    @property
    def need_all(self) -> bool:
        """Whether all samples must be known, with perceptual hashes, before the first one is kept."""
        return bool(self.leakage or self.near_duplicates)


@dataclass(frozen=True)
class LookAlikes:
    """What was found; None where it was not looked for."""

    leaks: Leaks | None
    repeats: Repeats | None

    def removal(self, key: str, hash_: int | None) -> str | None:
        """Count the next image of `train`, and return why it is left out; None if it is kept."""
        if self.leaks and self.leaks.removes(key, hash_):
            return LEAK
        return REPEAT if self.repeats and self.repeats.removes(key) else None

    def report(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
        found = {"leakage": self.leaks, "near_duplicates": self.repeats}
        return {name: one.report() for name, one in found.items() if one is not None}


def find_look_alikes(
    rules: LookAlikeRules, outlines: Callable[[], Iterable[tuple[str, int | None]]], scratch: Path
) -> LookAlikes:
    """Find the images of `train` that look like others.

    Args:
        rules: what is looked for.
        outlines: yields split and perceptual hash of every sample, without exact duplicates; called once for each rule.
        scratch: a folder for a temporary file.
    """
    leaks = repeats = None
    if rules.leakage:
        index = HashIndex(rules.leakage.max_distance)
        index.add(hash_ for split, hash_ in outlines() if split != TRAIN and hash_ is not None)
        for path in rules.leakage.against:
            index.add(hashes_of_images(path, rules.cleaning, rules.image_size))
        leaks = Leaks(rules.leakage, index)
    if rules.near_duplicates:
        trained = (hash_ for split, hash_ in outlines() if split == TRAIN)
        # an image that leaves `train` in any case must not take its look-alikes with it
        kept = (hash_ for hash_ in trained if not (leaks and leaks.is_removed(hash_)))
        repeats = Repeats(rules.near_duplicates, kept, scratch)
    return LookAlikes(leaks, repeats)
