"""Losses of ingestion: counted by reason, bounded by the configuration, reported with examples."""

import logging
from collections import Counter, defaultdict
from typing import Any

from fourfold.data.ingestion.sources import SampleStream
from fourfold.data.shards import ShardSet

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 3  # names of dropped items in the report, for each reason


class Tally:
    """Counts of kept and dropped items of one stream."""

    def __init__(self) -> None:
        self.kept = 0
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)  # "sample" | "member" | "archive" → reason → number
        self.examples: dict[str, list[str]] = defaultdict(list)

    def drop(self, name: str, reason: str, what: str = "sample") -> None:
        """Count one drop and keep the first names as examples.

        Args:
            name: the dropped item.
            reason: why it was dropped.
            what: "sample", "member" or "archive".
        """
        self.reasons[what][reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(name)

    @property
    def seen(self) -> int:
        """Number of samples of the stream, kept and dropped."""
        return self.kept + self.reasons["sample"].total()

    @property
    def drop_share(self) -> float:
        """Share of the samples that were dropped, 0 to 1."""
        return self.reasons["sample"].total() / max(self.seen, 1)


def check_drops(tally: Tally, stream: SampleStream, max_drop_share: float) -> None:
    """Log the losses of a stream and check them.

    Raises:
        ValueError: more than `max_drop_share` of the samples, or of the archives, were lost, or no sample is left.
    """
    reasons = tally.reasons["sample"] + tally.reasons["archive"]
    details = (
        "; ".join(f"{count} × {reason}, e.g. {tally.examples[reason][0]}" for reason, count in reasons.items()) or "it is empty"
    )
    advice = "Repair the source, loosen ingestion.cleaning, or raise ingestion.max_drop_share."
    if tally.drop_share > max_drop_share or not tally.kept:
        share = f"{tally.drop_share:.0%}, allowed {max_drop_share:.0%}"
        lost = f"{tally.seen - tally.kept} of {tally.seen} samples"
        raise ValueError(f"{lost} of {stream.location} cannot be used ({share}): {details}. {advice}")
    if reasons:
        logger.info("%s: kept %d of %d samples (%s).", stream.location, tally.kept, tally.seen, details)
    damaged, archives = tally.reasons["archive"].total(), len(stream.slices)
    if damaged > max_drop_share * archives:
        share = f"allowed {max_drop_share:.0%}"
        raise ValueError(f"{damaged} of {archives} archives of {stream.location} are damaged ({share}): {details}. {advice}")


def loss_report(shards: ShardSet, tallies: dict[str, Tally]) -> dict[str, Any]:
    """Return the counts of all streams together and of each stream, as JSON; equal samples give an equal report."""
    by_source = {
        stream: {
            "seen": tally.seen,
            "kept": tally.kept,
            "drop_share": tally.drop_share,
            **{f"{what}s_dropped": dict(reasons) for what, reasons in tally.reasons.items()},
            "examples": dict(tally.examples),
        }
        for stream, tally in tallies.items()
    }
    drops = sum((tally.reasons["sample"] for tally in tallies.values()), Counter[str]())
    seen = sum(tally.seen for tally in tallies.values())
    return {
        "seen": seen,
        "kept": {split: shards.num_samples(split) for split in shards.splits()},
        "dropped": dict(drops),
        "drop_share": drops.total() / seen,
        "max_drop_share_of_a_source": max(tally.drop_share for tally in tallies.values()),
        "members_ignored": dict(sum((tally.reasons["member"] for tally in tallies.values()), Counter[str]())),
        "archives_damaged": sum(tally.reasons["archive"].total() for tally in tallies.values()),
        "by_source": by_source,
    }
