"""The metrics of a page with their definitions: every number links to the one that explains it."""

import re

from fourfold.evaluation.tasks import PREDICTION_TASKS, pair_metrics
from fourfold.metrics.metric import Metric, find_metric

LABEL_TITLES = {
    "rgb": "RGB", "normal": "normals", "semseg": "segmentation", "det": "boxes", "clip": "CLIP features",
    "clip_global": "CLIP embedding", "canny_edge": "edges", "color_palette": "color palette", "keypoints": "joints",
}  # fmt: skip
COMPONENT_METRICS = (  # of tokenizers and teachers, beside those of the prediction tasks
    Metric("psnr", "PSNR", "decibels between pixels"),
    Metric("codebook_use", "codebook use", "share of the codes that occur in the validation split"),
    Metric("perplexity", "perplexity", "exponential of the entropy of the codes: how many are used, weighted by frequency"),
    Metric("cut", "cut", "share of the samples that are too long for the sequence", lower_is_better=True),
    Metric("cosine_pooled", "cosine, pooled", "cosine between features that are averaged over the image"),
    Metric("abs_rel_objects", "AbsRel, objects", "mean relative error of depth on object pixels", lower_is_better=True),
    Metric("cross_entropy", "cross-entropy", "nats per token; a uniform guess has the logarithm of the vocabulary", True),
)


class Definitions:
    """Collects the metrics that a page shows, in anchors that links can name."""

    def __init__(self) -> None:
        self._by_anchor: dict[str, Metric] = {}

    def anchor(self, metric: Metric) -> str:
        """Return the id of a metric's definition on the page; metrics that differ have different ones."""
        slug = "metric-" + re.sub(r"[^a-z0-9]+", "-", metric.name.lower()).strip("-")
        anchor, number = slug, 1
        while self._by_anchor.setdefault(anchor, metric) != metric:
            number += 1
            anchor = f"{slug}-{number}"
        return anchor

    @property
    def entries(self) -> list[tuple[str, Metric]]:
        """The metrics whose anchors were asked for, with these, by title."""
        return sorted(self._by_anchor.items(), key=lambda entry: (entry[1].title.lower(), entry[0]))


def label_title(label: str) -> str:
    """Return a label's name in the report, e.g. "RGB" for `rgb`; of a token modality, that of its label."""
    label = label.removeprefix("tok_")
    return LABEL_TITLES.get(label, label.replace("_", " "))


def pair_title(pair: str) -> str:
    """Return a pair in words, e.g. "RGB → depth" for `rgb->depth`."""
    source, _, target = pair.partition("->")
    return f"{label_title(source)} → {label_title(target)}"


def component_metric(label: str, name: str) -> Metric:
    """Return the metric of a teacher or tokenizer of a label: as in the prediction tasks of that label."""
    return find_metric([*pair_metrics(f"rgb->{label}"), *COMPONENT_METRICS], name)


def main_metric(pair: str, key: str) -> bool:
    """Return whether a key of metrics.json is the main metric of a pair that is a headline."""
    mains = [task.metrics[0] for _, task in PREDICTION_TASKS.items() if task.pair == pair and task.headline]
    return any(main.describes(key) for main in mains)


def format_number(value: float | int | None) -> str:
    """Return a number with its significant digits; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 2 else f"{value:.3f}"
