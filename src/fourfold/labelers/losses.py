"""Labels that are missing because a labeler failed on a sample: counted by modality and reason, bounded, reported."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fourfold.data.missing import Missing

FILTERED = "filtered out: "  # starts the reason of a label that the settings leave out: it does not count as a failure
NUM_EXAMPLES = 3  # keys of each modality and reason
SHOWN_REASONS = 5  # of a modality in messages
SYSTEMATIC = 100  # samples: where all of so many fail, the labeler is wrong and not the data


@dataclass(frozen=True)
class Loss:
    """One missing label."""

    modality: str
    key: str
    reason: str


def losses_of(keys: Sequence[str], columns: Mapping[str, Iterable[Any]]) -> list[Loss]:
    """Return the missing labels of some samples, by modality and in the order of the samples."""
    return [
        Loss(modality, key, value.reason)
        for modality, values in columns.items()
        for key, value in zip(keys, values, strict=True)
        if isinstance(value, Missing)
    ]


@dataclass
class LossCounts:
    """Counts of missing labels over several shards.

    Attributes:
        total: samples of all shards, which the bound refers to.
        max_share: the share of the labels of a modality that may be missing.
    """

    total: int
    max_share: float
    seen: int = 0
    reasons: dict[str, Counter[str]] = field(default_factory=dict)  # by modality
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # keys by modality and reason

    def add(self, split: str, num_samples: int, losses: Iterable[Loss]) -> None:
        """Count the losses of one shard; raises ValueError as soon as they are more than allowed, or all labels failed."""
        self.seen += num_samples
        for loss in losses:
            self.reasons.setdefault(loss.modality, Counter())[loss.reason] += 1
            found = self.examples.setdefault((loss.modality, loss.reason), [])
            if len(found) < NUM_EXAMPLES:
                found.append(f"{split}/{loss.key}")
        for modality, counts in self.reasons.items():
            failed = sum(count for reason, count in counts.items() if not reason.startswith(FILTERED))
            is_systematic = failed == self.seen >= SYSTEMATIC and self.max_share < 1
            if is_systematic or failed > self.max_share * self.total:
                self._refuse(modality, failed)

    def _refuse(self, modality: str, failed: int) -> None:
        raise ValueError(
            f"{failed:,} of {self.seen:,} {modality} labels are missing so far; allowed are {self.max_share:.0%} of "
            f"{self.total:,}. {self._described(modality)}. Correct the labeler or the images, or raise "
            "pseudo_labeling.max_missing_share. Finished shards are kept."
        )

    def _described(self, modality: str) -> str:
        common = self.reasons[modality].most_common(SHOWN_REASONS)
        return "; ".join(f"{count:,} × {reason} (e.g. {self.examples[modality, reason][0]})" for reason, count in common)

    def lines(self) -> list[str]:
        """Return a line for each modality that lacks labels."""
        return [
            f"{counts.total():,} of {self.seen:,} {modality} labels are missing: {self._described(modality)}."
            for modality, counts in sorted(self.reasons.items())
        ]

    def report(self) -> dict[str, Any]:
        """Return modality → reason → count and examples, as JSON; the most frequent reason first."""
        return {
            modality: {
                reason: {"count": count, "examples": self.examples[modality, reason]} for reason, count in counts.most_common()
            }
            for modality, counts in sorted(self.reasons.items())
        }
