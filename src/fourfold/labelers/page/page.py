"""The label page: one HTML file that needs no other file and no network, written as soon as the labels are complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.html import templates
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.consistency import NUM_LEAST, Measure, measure_of
from fourfold.labelers.page.cases import Case, Least, draw_cases

BEFORE_HERE = "pseudo_labeling.integration."
# Where stricter limits are tried out: shares, and degrees for angles
SHARES, DEGREES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), (10, 15, 20, 30, 45, 60)


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram: its ends, its count, and its height as a share of the highest one."""

    low: float
    high: float
    count: int
    height: float


@dataclass(frozen=True)
class Limit:
    """What a limit would keep."""

    value: str
    kept: int
    share: float


@dataclass(frozen=True)
class Section:
    """What the page shows of one measure."""

    measure: Measure
    title: str
    total: int
    bars: Sequence[Bar]
    limits: Sequence[Limit]
    cases: Sequence[Case]

    @property
    def setting(self) -> str:
        """The setting that filters by this measure."""
        return BEFORE_HERE + self.measure.setting


def label_page(shards: ShardSet, labels: ShardSet, report: Mapping[str, Any], config: LabelingConfig) -> str:
    """Return the page about integrated labels as HTML text; equal arguments give equal text.

    Args:
        shards: the images.
        labels: the labels.
        report: of `integrate_labels`.
        config: the labelers.
    """
    names = sorted({name for counts in report.values() for name in counts.get("certainty", {})})
    return (
        templates(Path(__file__).parent)
        .get_template("page.html.jinja")
        .render(
            sections=[_section(name, shards, labels, report, config) for name in names],
            teachers=_teachers(labels, report, config),
            missing=_missing(report),
            num_samples=sum(counts["samples"] for counts in report.values()),
            max_missing_share=config.max_missing_share,
        )
    )


def _section(name: str, shards: ShardSet, labels: ShardSet, report: Mapping[str, Any], config: LabelingConfig) -> Section:
    measure = measure_of(name)
    found = {split: counts["certainty"][name] for split, counts in report.items() if name in counts.get("certainty", {})}
    counts = [sum(column) for column in zip(*(one["histogram"] for one in found.values()), strict=True)]
    least = [
        Least(split, one["shard"], one["key"], one["value"], one.get("index"))
        for split, of_split in found.items()
        for one in of_split["least"]
    ]
    sign = -1 if measure.is_worse_high else 1
    least.sort(key=lambda one: (sign * one.value, one.split, one.key, one.index or 0))
    entry = config.labeler_classes().get(measure.modality)
    is_fused = name.endswith("/confidence") and entry is not None and entry.kind == "fusion"
    title = f"Agreement of teachers: {measure.modality}" if is_fused else measure.title
    cases = draw_cases(shards, labels, measure, least[:NUM_LEAST])
    return Section(measure, title, sum(counts), _bars(counts, measure), _limits(counts, measure), cases)


def _bars(counts: Sequence[int], measure: Measure) -> list[Bar]:
    width, highest = measure.top / len(counts), max(counts)
    return [Bar(i * width, (i + 1) * width, count, count / highest) for i, count in enumerate(counts)]


def _limits(counts: Sequence[int], measure: Measure) -> list[Limit]:
    """Return how many labels some limits would keep; the limits are ends of bins, so the counts are exact."""
    limits = []
    for limit in DEGREES if measure.is_worse_high else SHARES:
        at = round(limit / measure.top * len(counts))
        kept = sum(counts[:at] if measure.is_worse_high else counts[at:])
        limits.append(Limit(f"{limit:g}", kept, kept / max(sum(counts), 1)))
    return limits


def _teachers(labels: ShardSet, report: Mapping[str, Any], config: LabelingConfig) -> list[dict[str, Any]]:
    """Return a row for each modality: who labels it, with what license, and how many labels there are."""
    rows = []
    for modality, entry in sorted(config.labeler_classes().items()):
        split = next((split for split in labels.splits() if modality in labels.modalities(split)), None)
        origin = (labels.manifest(split, modality).origin if split else None) or {}
        rows.append(
            {
                "modality": modality,
                "title": entry.title,
                "model": origin.get("model", ""),
                "license": origin.get("license", "") or ("not stated" if origin and "of" not in origin else ""),
                "missing": sum(counts.get(f"missing/{modality}", 0) for counts in report.values()),
            }
        )
    return rows


def _missing(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"split": split, "modality": modality, "reason": reason, **found}
        for split, counts in report.items()
        for modality, reasons in counts.get("missing", {}).items()
        for reason, found in reasons.items()
    ]
