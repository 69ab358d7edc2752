"""The label card: which teacher made each modality, with version, license and limits, as Markdown for people."""

from collections.abc import Mapping
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.labelers.config import LabelingConfig
from fourfold.modalities import FOUR_M_7, SOURCE_LABELS, token_modality

SHOWN = (
    ("model", "Model"),
    ("revision", "Revision"),
    ("license", "License of the weights"),
    ("trained_on", "Trained on"),
    ("scale", "Scale"),
    ("software", "Software"),
)
SHORT = 12  # hex digits of a digest
MAX_CLASSES = 12  # that are listed


def label_card(labels: ShardSet, config: LabelingConfig, report: Mapping[str, Any] | None = None) -> str:
    """Return the label card of integrated labels; equal arguments give equal text.

    Args:
        labels: the labels; their manifests have the origins of the teachers and the class tables.
        config: the configured labelers.
        report: of `integrate_labels`; the card lists the missing labels in it.
    """
    splits = labels.splits()
    names = sorted({name for split in splits for name in labels.modalities(split)})
    counts = [f"| {split} | {labels.num_samples(split):,} |" for split in splits]
    parts = ["# Label card", "\n".join(["| Split | Samples |", "| --- | --- |", *counts])]
    for name in names:
        split = next(split for split in splits if name in labels.modalities(split))
        parts += [f"## {name}", "\n".join(_lines(name, labels, split, config))]
    parts += _missing(report or {})
    if config.keep != "all":
        parts += [
            f"Of `train`, not all labels are stored (`keep: {config.keep}`): the others are computed when it is tokenized."
        ]
    usual = sorted({token_modality(name).label for name in FOUR_M_7} - set(SOURCE_LABELS))
    if missing := [name for name in usual if name not in names]:
        parts += ["## Left out", f"No teacher is configured for: {', '.join(missing)}. See docs/guides/choose-teachers.md."]
    return "\n\n".join(parts) + "\n"


def _missing(report: Mapping[str, Any]) -> list[str]:
    """Return the section about samples on which a labeler failed; nothing where there are none."""
    rows = [
        f"| {split} | {modality} | {found['count']:,} | {_cell(reason)} | {', '.join(found['examples'])} |"
        for split, counts in report.items()
        for modality, reasons in counts.get("missing", {}).items()
        for reason, found in reasons.items()
    ]
    if not rows:
        return []
    text = (
        "These samples lack a label: masking leaves the modality out of them, tokenizers do not learn from it, and they are "
        "not evaluated."
    )
    header = "| Split | Modality | Missing | Reason | For example |\n| --- | --- | --- | --- | --- |"
    return ["## Missing labels", text, "\n".join([header, *rows])]


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _lines(name: str, labels: ShardSet, split: str, config: LabelingConfig) -> list[str]:
    manifest, labeler = labels.manifest(split, name), config.labeler_classes().get(name)
    lines = [f"- Labeler: {labeler.title} (`{labeler.name}`)" if labeler else "- From elsewhere"]
    lines += _origin_lines(manifest.origin or {})
    if manifest.class_table is not None:
        classes = manifest.class_table.names
        more = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
        lines.append(f"- Classes: {', '.join(classes[:MAX_CLASSES])}{more}")
    return lines


def _origin_lines(origin: dict[str, Any]) -> list[str]:
    lines = [f"- {title}: {origin[key]}" for key, title in SHOWN if origin.get(key)]
    if origin and not origin.get("license") and "of" not in origin:
        lines.append("- License of the weights: not stated")
    if isinstance(digest := origin.get("sha256"), str):
        lines.append(f"- SHA-256: {digest[:SHORT]}…")
    for part in origin.get("of", ()):
        lines += [f"- Part of a fusion: {part.get('name')}", *(f"  {line}" for line in _origin_lines(part))]
    return lines
