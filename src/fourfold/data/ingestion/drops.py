"""Losses of ingestion: counted by reason, bounded by the configuration, reported with examples."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fourfold.data.ingestion.sources import SampleStream
from fourfold.data.shards import ShardSet

NUM_EXAMPLES = 3  # names of dropped items in the report, for each reason
MAX_REASONS = 100  # counted by name for each unit; a source with more has the rest under one name
OTHER_REASONS = "other reasons"
SHOWN_REASONS = 20  # in the log
UNITS = {  # in the plural; members of archives are files to people
    "sample": "samples",
    "removal": "samples",  # by rules of the settings
    "archive": "archives",
    "folder": "folders",
    "member": "files",
    "row": "rows",
    "caption": "captions",
}


class Tally:
    """Counts of kept and dropped items of one stream."""

    def __init__(self) -> None:
        self.kept = 0
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)  # `sources.DropUnit` → reason → number
        self.examples: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # as `reasons`

    def drop(self, name: str, reason: str, what: str = "sample") -> None:
        """Count one drop and keep the first names as examples.

        Args:
            name: the dropped item.
            reason: why it was dropped.
            what: the unit of the loss, see `sources.Drop`.
        """
        if reason not in self.reasons[what] and len(self.reasons[what]) >= MAX_REASONS:
            reason = OTHER_REASONS
        self.reasons[what][reason] += 1
        if len(self.examples[what][reason]) < NUM_EXAMPLES:
            self.examples[what][reason].append(name)

    def example(self, reason: str) -> str:
        """Return the name of an item that was dropped for a reason."""
        return next(found[reason][0] for found in self.examples.values() if reason in found)

    @property
    def seen(self) -> int:
        """Number of samples of the stream, kept, dropped and removed."""
        return self.kept + self.reasons["sample"].total() + self.reasons["removal"].total()

    @property
    def drop_share(self) -> float:
        """Share of the samples that were dropped because of a fault, 0 to 1."""
        return self.reasons["sample"].total() / max(self.seen, 1)


def check_drops(tally: Tally, stream: SampleStream, max_drop_share: float) -> None:
    """Check the losses of a stream.

    Raises:
        ValueError: more than `max_drop_share` of the samples, or of the archives, were lost, or no sample is left.
    """
    reasons = tally.reasons["sample"] + tally.reasons["archive"]
    if not tally.kept:  # the reason may be anywhere, e.g. in rows of a table that name no image
        reasons = sum(tally.reasons.values(), Counter[str]())
    counts = [f"{count} × {reason}, e.g. {tally.example(reason)}" for reason, count in reasons.most_common(SHOWN_REASONS)]
    details = "; ".join(counts) or "it is empty"
    advice = "Repair the source, loosen ingestion.cleaning, or raise ingestion.max_drop_share."
    if tally.drop_share > max_drop_share or not tally.kept:
        share = f"{tally.drop_share:.0%}, allowed {max_drop_share:.0%}"
        lost = f"{tally.seen - tally.kept} of {tally.seen} samples"
        raise ValueError(f"{lost} of {stream.location} cannot be used ({share}): {details}. {advice}")
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
            **{f"{what}s_dropped": dict(reasons) for what, reasons in tally.reasons.items() if reasons},
            "examples": {what: dict(found) for what, found in tally.examples.items()},
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


@dataclass(frozen=True)
class Loss:
    """What a source left out for one reason."""

    count: int
    unit: str  # of the count, see `sources.DropUnit`
    reason: str
    examples: tuple[str, ...]
    source: str

    @property
    def amount(self) -> str:
        """Count and unit in words, e.g. "3 samples"."""
        return f"{self.count:,} {UNITS[self.unit] if self.count > 1 else UNITS[self.unit][:-1]}"


def losses(report: Mapping[str, Any]) -> list[Loss]:
    """Return what was left out by unit, reason and source, the most frequent first; see `loss_report`."""
    found = [
        Loss(count, unit, reason, tuple(source["examples"][unit][reason]), name)
        for name, source in report["by_source"].items()
        for unit in UNITS
        for reason, count in source.get(f"{unit}s_dropped", {}).items()
    ]
    return sorted(found, key=lambda loss: (-loss.count, loss.unit, loss.reason, loss.examples, loss.source))


def describe_losses(report: dict[str, Any]) -> str:
    """Return a few lines about what was kept and what was lost, the most frequent reason first; see `loss_report`."""
    kept, lost = report["kept"], losses(report)
    splits = ", ".join(f"{split} {count}" for split, count in kept.items())
    lines = [f"Ingestion kept {sum(kept.values())} of {report['seen']} samples ({splits})."]
    lines += [
        f"  {loss.source}: {loss.amount} left out: {loss.reason}, e.g. {loss.examples[0]}" for loss in lost[:SHOWN_REASONS]
    ]
    if len(lost) > SHOWN_REASONS:
        lines.append(f"  and {len(lost) - SHOWN_REASONS} more reasons")
    return "\n".join(lines)


def loss_metrics(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report for a tracker: samples seen and kept, and losses by unit and for the first reasons."""
    metrics = {"samples_seen": report["seen"], "samples_kept": sum(report["kept"].values()), "drop_share": report["drop_share"]}
    by_reason: Counter[str] = Counter()
    for loss in losses(report):
        plural = UNITS[loss.unit]
        metrics[f"left_out/{plural}"] = metrics.get(f"left_out/{plural}", 0) + loss.count
        by_reason[f"left_out/{plural}/{loss.reason}"] += loss.count
    return {name: float(value) for name, value in [*metrics.items(), *by_reason.most_common(SHOWN_REASONS)]}
