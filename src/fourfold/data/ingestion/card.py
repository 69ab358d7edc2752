"""The data card: what was ingested, from where, by which rules, and what was left out, as Markdown for people."""

from collections.abc import Sequence
from typing import Any

from fourfold.data.ingestion.drops import SHOWN_REASONS, losses
from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.data.ingestion.sources import SOURCES, SourceConfig
from fourfold.data.ingestion.sources.several import each_source


def data_card(config: IngestionConfig, report: dict[str, Any]) -> str:
    """Return the data card of a finished ingestion; equal arguments give equal text.

    Args:
        config: the settings of the ingestion.
        report: its counts, see `drops.loss_report`.
    """
    sources, is_several = list(all_sources(config).items()), len(each_source(config.source)) > 1
    splits = report["kept"].items()
    settings = {"image_size": config.image_size, **config.cleaning.model_dump(mode="json")}
    parts = [
        "# Data card",
        "\n".join(f"- {_source(name if is_several else '', one.model_dump(mode='json'))}" for name, one in sources),
        f"{sum(report['kept'].values()):,} of {report['seen']:,} samples were kept.",
        _table(("Split", "Samples"), [(split, f"{count:,}") for split, count in splits]),
        *_by_source(report, list(each_source(config.source))),
        "## Left out",
        _losses(report),
        *_leakage(report),
        *_repeats(report),
        "## Rules",
        "Images become upright squares in sRGB: turned, cropped around their center, resized. Exact duplicates are left out.",
        _table(("Setting", "Value"), [(f"`{name}`", _value(value)) for name, value in settings.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def all_sources(config: IngestionConfig) -> dict[str, SourceConfig]:
    """Return the settings of all sources by name: "" for the only one, "supplement" for that."""
    supplement = {"supplement": config.supplement} if config.supplement else {}
    return each_source(config.source) | supplement


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else _escaped(str(value))


def _source(name: str, settings: dict[str, Any]) -> str:
    kind, terms = settings.pop("kind"), settings.pop("license", None)
    given = ", ".join(f"{key} = {_escaped(str(value))}" for key, value in settings.items() if value is not None)
    own_name = f"**{name}**: " if name else ""
    text = f"{own_name}{SOURCES.get(kind).title} (`{kind}`): {given}"
    if terms is None and "path" not in settings:  # rendered
        return text
    return f"{text}. License: {_escaped(terms or 'not stated')}"


def _by_source(report: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return a table of what was kept of each of several sources."""
    if names == [""]:
        return []
    rows = [
        (name, f"{found['kept']:,}", f"{found['seen']:,}")
        for name, found in report["by_source"].items()
        if name.partition("-")[0] in names
    ]
    return [_table(("Source", "Kept", "Of"), rows)]


def _leakage(report: dict[str, Any]) -> list[str]:
    """Return the section about near-duplicates; nothing where they were not looked for."""
    found = report.get("leakage")
    if found is None:
        return []
    names, kept = _look_alikes(found)
    return [
        "## Leakage",
        f"{found['found']:,} images of `train` are near-duplicates of one of {found['evaluation_images']:,} different "
        f"evaluation images{names}; they are {kept}. Compared are perceptual hashes of 64 bits, which may differ in "
        f"{found['max_distance']} of them; crops and mirror images are not found.",
    ]


def _repeats(report: dict[str, Any]) -> list[str]:
    """Return the section about near-duplicates within `train`; nothing where they were not looked for."""
    found = report.get("near_duplicates")
    if found is None:
        return []
    names, kept = _look_alikes(found)
    return [
        "## Near-duplicates",
        f"{found['found']:,} of {found['training_images']:,} images of `train` are near-duplicates of an earlier one{names}; "
        f"they are {kept}. Their hashes differ in at most {found['max_distance']} of 64 bits.",
    ]


def _look_alikes(found: dict[str, Any]) -> tuple[str, str]:
    """Return examples of near-duplicates, and what became of all of them, in words."""
    names = f", e.g. {', '.join(map(_escaped, found['examples']))}" if found["examples"] else ""
    return names, "left out" if found["removed"] else "kept"


def _losses(report: dict[str, Any]) -> str:
    lost = losses(report)
    if not lost:
        return "Nothing."
    rows = [(loss.source, loss.amount, loss.reason, ", ".join(loss.examples)) for loss in lost[:SHOWN_REASONS]]
    more = f"\n\nAnd {len(lost) - SHOWN_REASONS} more reasons." if len(lost) > SHOWN_REASONS else ""
    return _table(("Source", "Left out", "Reason", "For example"), rows) + more


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *(tuple(map(_escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that stays within its cell: names of files may hold any printable character."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
