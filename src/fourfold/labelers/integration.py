"""Integration: check the labels of all labelers, compare them with each other, and filter boxes.

No sample is dropped, so all modalities stay aligned; single boxes may be. A label that is impossible (a depth beyond the
limit, a class that does not exist) is missing from then on, with all that was made from it; missing labels and disagreements
between labelers are counted, and missing ones bounded.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.facts import facts_path
from fourfold.data.missing import Missing
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import keep_at, store_of
from fourfold.data.shards import Sample, ShardSet, finish_split, write_columns
from fourfold.labelers.checks import ValueLimits, find_problem
from fourfold.labelers.config import IntegrationConfig, LabelingConfig
from fourfold.labelers.consistency import (
    CONFIDENCE,
    SEGMENTATION,
    Certainty,
    Values,
    angles_to_depth,
    share_inside,
    values_of,
)
from fourfold.labelers.image_statistics.metadata import recounted
from fourfold.labelers.losses import FILTERED, Loss, LossCounts, losses_of
from fourfold.local_workers import results_of
from fourfold.modalities import label as label_entry
from fourfold.modalities.class_table import ClassTable
from fourfold.modalities.metadata import METADATA_TYPES, Range
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.storage import scratch_path, write_bytes

logger = logging.getLogger(__name__)
KEPT = "kept"
REJECTION_REASONS = ("dropped_score", "dropped_shape", "dropped_class")


def integrate_labels(
    labels: ShardSet, shards: ShardSet, config: LabelingConfig, folder: Path, *, shards_at: str | None = None
) -> tuple[ShardSet, dict[str, Any]]:
    """Write the labels that all later stages use, and return them with a report.

    Args:
        labels: the raw labels.
        shards: the images; the labels must be aligned with them.
        config: the limits, the camera, and the labelers whose checks apply.
        folder: where the labels are written.
        shards_at: where the labels are kept, see `keep_at`; by default in `folder`. Shards that integration leaves as they are
            are there once for both sets.

    Returns:
        The integrated labels, and per split counts (`boxes/kept`, `boxes/dropped_score`, `boxes/dropped_class`,
        `normals/disagree`, ...) and means over samples (`normals/angle_to_depth`, in degrees). Where labels are missing,
        `missing/<modality>` counts them, and `missing` has the reasons with examples. `certainty` has histograms and the least
        certain labels (`fourfold.labelers.consistency`).

    Raises:
        ValueError: more labels of a modality are missing than `config.max_missing_share` allows.
    """
    uses, inputs = config.labeler_classes().values(), {"labels": labels.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, uses=uses, integration=config.integration, camera=config.camera))
    keep_at(folder, shards_at)
    report: dict[str, Any] = {}
    overall = LossCounts(sum(map(labels.num_samples, labels.splits())), config.max_missing_share)
    for split in labels.splits():
        modalities = [name for name in labels.modalities(split) if name != CONFIDENCE]
        one, certainty = _Split(labels, split, config, ResumedShards(folder, modalities)), Certainty()
        names, of_split = labels.shard_names(split), LossCounts(labels.num_samples(split), 1.0)
        counts: Counter[str] = Counter({f"boxes/{outcome}": 0 for outcome in (KEPT, *REJECTION_REASONS)})
        with closing(results_of(one.integrate, names)) as results:
            found = progress(results, f"integrating {split}", len(names), "shard")
            for name, (of_shard, lost, values) in zip(names, found, strict=True):
                counts.update(of_shard)
                certainty.add(name, values)
                for tally in (of_split, overall):
                    tally.add(split, of_shard["samples"], lost)
        is_part = config.keep != "all"
        finish_split(folder, split, one.resumed.modalities, shards, one.class_tables, origins=one.origins, is_part=is_part)
        report[split] = _summary(counts) | _missing(of_split) | {"certainty": certainty.report()}
    for line in overall.lines():
        logger.warning(line)
    return ShardSet(folder), report


@dataclass(frozen=True)
class _Split:
    """The raw labels of a split, and where those of them that are missing are written."""

    labels: ShardSet
    split: str
    config: LabelingConfig
    resumed: ResumedShards

    @cached_property
    def origins(self) -> dict[str, dict[str, Any]]:
        """What is recorded about teachers from elsewhere, by modality."""
        manifests = {modality: self.labels.manifest(self.split, modality) for modality in self.resumed.modalities}
        return {modality: found.origin for modality, found in manifests.items() if found.origin is not None}

    @cached_property
    def class_tables(self) -> dict[str, ClassTable]:
        """The class tables of the labels, by modality."""
        manifests = {modality: self.labels.manifest(self.split, modality) for modality in self.resumed.modalities}
        return {modality: found.class_table for modality, found in manifests.items() if found.class_table is not None}

    def integrate(self, name: str) -> tuple[Counter[str], list[Loss], Values]:
        """Check one shard and write what is missing of it.

        Returns:
            Its counts with sums of what `_summary` averages, the labels that are missing, and how certain the others are.
        """
        has_confidence = CONFIDENCE in self.labels.modalities(self.split)
        modalities = [*self.resumed.modalities, *([CONFIDENCE] if has_confidence else [])]
        samples = self.labels.read(self.split, modalities, name)
        keys = [sample["__key__"] for sample in samples]
        changed, counts, angles = integrated(samples, self.config, self.class_tables)
        for modality in self.resumed.missing(self.split, name):
            if modality in changed:
                column = ((sample["__key__"], sample[modality]) for sample in samples)
                write_columns(self.resumed.root, self.split, name, {modality: column}, self.class_tables)
            else:
                self._copy_shard(modality, name)
        losses = losses_of(keys, {m: [sample[m] for sample in samples] for m in self.resumed.modalities})
        return counts, losses, values_of(samples, angles, self.class_tables.get(SEGMENTATION))

    def _copy_shard(self, modality: str, name: str) -> None:
        """Copy a shard that integration leaves as it is; in one store there is nothing to copy but its facts."""
        at, store = Path(self.split, modality, name), store_of(self.resumed.root)
        source, target = self.labels.root / at, self.resumed.root / at
        if store is not None and store != self.labels.store:
            content = self.labels.read_file(self.split, modality, name)
            with scratch_path(target) as temporary:
                temporary.write_bytes(content)
                store.put(temporary, hashlib.sha256(content).hexdigest())
        write_bytes(facts_path(target), facts_path(source).read_bytes())  # a shard that is there has them
        if store is None:
            write_bytes(target, self.labels.read_file(self.split, modality, name))


def integrated(
    samples: list[Sample], config: LabelingConfig, class_tables: dict[str, ClassTable]
) -> tuple[set[str], Counter[str], dict[str, float]]:
    """Take out of some samples, in place, the labels that are impossible, filtered out or disagree.

    Args:
        samples: raw labels by modality, and `confidence` where a labeler is rated.
        config: limits, camera and labelers.
        class_tables: by modality.

    Returns:
        The modalities that change, counts with sums of what `_summary` averages, and the angles of `angles_to_depth`.
    """
    changed = _without_impossible(samples, config, class_tables)
    angles = angles_to_depth(samples, config.camera)
    changed |= _without_disagreeing(samples, angles, config.integration)
    counts = _compare(samples, np.array(list(angles.values()), np.float32), config)
    changed |= _without_rejected(samples, config.integration, class_tables.get(SEGMENTATION), counts)
    return changed, counts, angles


def _without_rejected(
    samples: list[Sample], config: IntegrationConfig, classes: ClassTable | None, counts: Counter[str]
) -> set[str]:
    """Take rejected boxes out of the samples, and correct metadata that count boxes; return the modalities that change."""
    if "det" not in samples[0]:
        return set()
    for sample in samples:
        if not isinstance(sample["det"], Missing):
            sample["det"] = _kept_boxes(sample, config, classes, counts)
            if not isinstance(metadata := sample.get("metadata", Missing("")), Missing):
                sample["metadata"] = recounted(metadata, sample["det"]["instances"])
    return {"det", "metadata"}


def _without_impossible(samples: list[Sample], config: LabelingConfig, tables: dict[str, ClassTable]) -> set[str]:
    """Replace labels outside what their labeler, or their kind, allows; return the modalities that change."""
    labelers, changed = config.labeler_classes(), set[str]()
    for sample in samples:
        found = {modality: _problem(sample, modality, config, tables) for modality in sample.keys() - {"__key__", CONFIDENCE}}
        bad = {modality: problem for modality, problem in found.items() if problem}
        made_from = {m: sorted(bad.keys() & set(labelers[m].requires)) for m in sample.keys() & labelers.keys()}
        bad |= {m: _follows(names[0], bad[names[0]]) for m, names in made_from.items() if names and m not in bad}
        for modality, problem in bad.items():
            if not isinstance(sample[modality], Missing):
                sample[modality] = Missing(problem)
                changed.add(modality)
    return changed


def _follows(modality: str, problem: str) -> str:
    """Return why a label is missing that was made from another one with a problem."""
    if problem.startswith(FILTERED):
        return f"{FILTERED}made from {modality}, which is"
    return f"made from an impossible label: {modality}"


def _without_disagreeing(samples: list[Sample], angles: Mapping[str, float], config: IntegrationConfig) -> set[str]:
    """Take out normals that disagree with the depth, if that is configured; return the modalities that change."""
    if config.disagreeing_normals == "keep":
        return set()
    reason = f"{FILTERED}more than {config.max_normal_angle:g} degrees from the normals of the depth"
    for sample in samples:
        if angles.get(sample["__key__"], 0.0) > config.max_normal_angle:
            sample["normal"] = Missing(reason)
    return {"normal"}


def _problem(sample: Sample, modality: str, config: LabelingConfig, tables: dict[str, ClassTable]) -> str | None:
    """Return what is impossible about a label; None when nothing is, or when it is missing."""
    if isinstance(sample[modality], Missing):
        return None
    minimum = config.integration.min_confidence.get(modality, 0.0)
    if sample.get(CONFIDENCE, {}).get(modality, 1.0) < minimum:
        return f"{FILTERED}confidence below {minimum:g}"
    labelers = config.labeler_classes()
    limits = ValueLimits(config.integration.max_depth, tables.get(modality))
    if modality in labelers:
        problem = labelers[modality].find_problem(sample[modality], limits)
    else:  # labels from elsewhere
        problem = find_problem(label_entry(modality).kind, sample[modality], limits)
    return f"impossible: {problem}" if problem else None


def _compare(samples: list[Sample], angles_B: np.ndarray, config: LabelingConfig) -> Counter[str]:
    """Compare the labels of some samples with each other; returns counts, and sums of what `_summary` averages."""
    counts: Counter[str] = Counter({"samples": len(samples)})
    if len(angles_B):
        counts["pairs"] += len(angles_B)
        counts["normals/disagree"] += int((angles_B > config.integration.max_normal_angle).sum())
        counts["sum/normals/angle_to_depth"] += float(angles_B.sum())  # type: ignore[assignment]
    for sample in samples:
        metadata = sample.get("metadata", {})
        for name, value in () if isinstance(metadata, Missing) else metadata.items():
            if isinstance(bins := METADATA_TYPES[name], Range) and not bins.low <= value <= bins.high:
                counts[f"metadata/{name}_out_of_range"] += 1
    return counts


def _kept_boxes(sample: Sample, config: IntegrationConfig, classes: ClassTable | None, counts: Counter[str]) -> dict[str, Any]:
    """Return `det` without the rejected boxes, and count every outcome."""
    kept = []
    for instance in sample["det"]["instances"]:
        ids_HW = sample.get(SEGMENTATION)
        reason = _rejection_reason(instance, None if isinstance(ids_HW, Missing) else ids_HW, classes, config)
        counts[f"boxes/{reason or KEPT}"] += 1
        if reason is None:
            kept.append(instance)
    return {"instances": kept}


def _rejection_reason(
    instance: dict[str, Any], ids_HW: np.ndarray | None, classes: ClassTable | None, config: IntegrationConfig
) -> str | None:
    """Return why a box is rejected: a low score, an empty or impossible shape, or another class in the segmentation."""
    if instance["score"] < config.min_score:
        return "dropped_score"
    xmin, ymin, xmax, ymax = instance["box"]
    if not (0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1):
        return "dropped_shape"
    # A detector may have classes that the segmentation lacks; their boxes cannot be compared.
    if ids_HW is None or classes is None or instance["class_name"] not in classes.names:
        return None
    share = share_inside(ids_HW, instance["box"], classes.id_of(instance["class_name"]), classes)
    return "dropped_class" if share is not None and share < config.min_class_overlap else None


def _summary(counts: Counter[str]) -> dict[str, Any]:
    """Return the counts, and the sums as means over the samples that have both depth and normals."""
    kept = {name: value for name, value in sorted(counts.items()) if not name.startswith("sum/") and name != "pairs"}
    sums = {name: value / counts["pairs"] for name, value in counts.items() if name.startswith("sum/")}
    return kept | {name.removeprefix("sum/"): value for name, value in sums.items()}


def _missing(losses: LossCounts) -> dict[str, Any]:
    """Return what the report has about missing labels; nothing where none is missing."""
    counts: dict[str, Any] = {f"missing/{modality}": found.total() for modality, found in sorted(losses.reasons.items())}
    return counts | {"missing": losses.report()} if counts else {}
