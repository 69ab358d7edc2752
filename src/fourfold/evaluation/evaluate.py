"""What the pretrained model can do as it is: every arrow against a trivial answer, shuffled inputs and the teacher.

RGB → depth, normals, segmentation, boxes, caption, CLIP features; caption → segmentation and → RGB; where they are labeled,
both → global features, and RGB → edges, palettes and metadata. `test` is read here and nowhere else. Where the source has no
exact truth, the labels are the reference and `reference` says so.
"""

# N samples, H height, W width, C channels or classes

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field, field_validator

from fourfold.configuration import Config
from fourfold.data.shards import ShardSet
from fourfold.evaluation.comparison import Figure, compare, derangement, figures
from fourfold.evaluation.samples import COMPUTED, IF_LABELED, Samples, load_samples, main_objects
from fourfold.evaluation.tasks.computed import metadata_statistics, palette_statistics
from fourfold.evaluation.tasks.trivial import OBJECT_IDS, trivial_answers
from fourfold.evaluation.zero_shot import CHOICES, ImageTextEncoder, majority_statistics, zero_shot_statistics
from fourfold.generation.config import GenerationConfig
from fourfold.metrics import dense
from fourfold.metrics.boxes import average_precision_statistic
from fourfold.metrics.statistics import Statistic
from fourfold.scenes.scoring import caption_statistics, described_shapes, set_f1
from fourfold.scenes.world.vocabulary import CLASS_NAMES

ARROWS = {"rgb": ("depth", "normal", "semseg", "det", "caption", "clip"), "caption": ("semseg", "rgb")}
LOWER_IS_BETTER = {"abs_rel", "mean_angle", "mean_angle_objects", "color_distance"}

Predictions = dict[str, dict[str, Any]]  # input → target → values of all samples


class ArrowConfig(Config):
    """How the answer of one arrow is generated: by way of other targets, each finished one a condition of the next (4M §4)."""

    via: tuple[str, ...] = ()  # labels
    generation: GenerationConfig = GenerationConfig()  # one step, the most probable tokens


class EvaluationConfig(Config):
    """How the tables are made."""

    max_samples: int = Field(1000, ge=2)  # of the split; bounds time and memory whatever its size
    replicates: int = Field(1000, ge=10)  # of the bootstrap
    recall_k: int = Field(10, ge=1)
    least_share: float = Field(0.005, ge=0, le=1)  # of the pixels, for a shape to count as shown
    gallery_samples: int = Field(6, ge=1, le=50)
    arrows: dict[str, ArrowConfig] = Field(default_factory=dict)  # by name, e.g. "caption->rgb"; others: ArrowConfig()

    @field_validator("arrows")
    @classmethod
    def _known(cls, value: dict[str, ArrowConfig]) -> dict[str, ArrowConfig]:
        known = [f"{source}->{target}" for source, targets in ARROWS.items() for target in targets]
        known += [f"{source}->{target}" for target, sources in IF_LABELED.items() for source in sources]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"arrows names {', '.join(unknown)}. Allowed: {', '.join(known)}.")
        return value


class Predictor(Protocol):
    """The any-to-any model as evaluation needs it."""

    def predict(
        self, conditions: dict[str, Any], targets: Sequence[str], *, config: GenerationConfig | None = None, seed: int = 0
    ) -> dict[str, Any]:
        """Return the decoded targets of a batch of conditions; both by label, in the formats of the codecs."""


@dataclass(frozen=True)
class Judge:
    """Scores of one split: for each arrow, predictions → statistics."""

    samples: Samples
    encoder: ImageTextEncoder
    config: EvaluationConfig

    def rgb_to_depth(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `abs_rel` and `delta1`."""
        return dense.depth_statistics(predicted, self.samples.truth["depth"], self.samples.valid)

    def rgb_to_normal(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `mean_angle` and `mean_angle_objects`."""
        return dense.normal_statistics(predicted, self.samples.truth["normal"], self.samples.valid, self.samples.objects)

    def rgb_to_semseg(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `miou` and `miou_objects`."""
        return dense.segmentation_statistics(predicted, self.samples.truth["semseg"], len(CLASS_NAMES), OBJECT_IDS)

    def rgb_to_det(self, predicted: Sequence[dict]) -> dict[str, Statistic]:
        """Return `ap50`."""
        return {"ap50": average_precision_statistic(predicted, self.samples.truth["det"])}

    def rgb_to_caption(self, predicted: Sequence[str]) -> dict[str, Statistic]:
        """Return `exact`, `exact_objects`, `pair_f1`, `count` and `verbatim`."""
        return caption_statistics(predicted, self.samples.captions)

    def rgb_to_clip(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return the cosine to the teacher's features and the retrieval of the own caption."""
        pooled_NC, texts_NC = self.encoder.pool(predicted), self.encoder.encode_text(self.samples.captions)
        cosine = dense.cosine_statistic(predicted, self.samples.labels["clip"])
        return {"cosine": cosine, "recall_at_1": dense.recall_statistic(pooled_NC, texts_NC, 1)}

    def rgb_to_clip_global(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return the cosine to the teacher's embedding and the retrieval of the own caption."""
        texts_NC = self.encoder.encode_text(self.samples.captions)
        cosine = dense.cosine_statistic(predicted, self.samples.labels["clip_global"])
        return {"cosine": cosine, "recall_at_1": dense.recall_statistic(predicted, texts_NC, 1)}

    def rgb_to_canny_edge(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `f1`, within one pixel."""
        return {"f1": dense.edge_statistic(predicted, self.samples.labels["canny_edge"])}

    def rgb_to_color_palette(self, predicted: Sequence[dict]) -> dict[str, Statistic]:
        """Return `color_distance`."""
        return palette_statistics(predicted, self.samples.labels["color_palette"])

    def rgb_to_metadata(self, predicted: Sequence[dict]) -> dict[str, Statistic]:
        """Return `same_bin` and `near_bin`."""
        return metadata_statistics(predicted, self.samples.labels["metadata"])

    def caption_to_clip_global(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return the cosine to the embedding of the real image and its retrieval among all, by the caption alone."""
        images_NC, k = self.samples.labels["clip_global"], self.config.recall_k
        cosine = dense.cosine_statistic(predicted, images_NC)
        return {"cosine": cosine, f"image_recall_at_{k}": dense.recall_statistic(predicted, images_NC, k)}

    def caption_to_semseg(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `shape_f1`: are the shapes that the caption names, and no others, shown?"""
        shown = [shown_shapes(classes, self.config.least_share) for classes in predicted]
        return {"shape_f1": set_f1(shown, [described_shapes(text) for text in self.samples.captions])}

    def caption_to_rgb(self, predicted: np.ndarray) -> dict[str, Statistic]:
        """Return `clip_recall_at_k`: is the caption among the k that the teacher finds nearest to the picture?"""
        pictures_NC, texts_NC = self.encoder.encode_image(predicted)[1], self.encoder.encode_text(self.samples.captions)
        k = self.config.recall_k
        return {f"clip_recall_at_{k}": dense.recall_statistic(pictures_NC, texts_NC, k)}

    def score(self, source: str, target: str) -> Any:
        """Return the score of one arrow."""
        return getattr(self, f"{source}_to_{target}")


def evaluate(
    any_to_any: Predictor,
    encoder: ImageTextEncoder,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet | None,
    split: str,
    config: EvaluationConfig,
    seed: int,
    fit_split: str = "val",
) -> dict[str, Any]:
    """Return `{"out_of_the_box": {"rgb->depth": {"abs_rel": {"value", "trivial", "shuffled", "teacher", "ci95"}}}, ...}`.

    Args:
        any_to_any: the model; asked for one target at a time, so that no prediction leans on another.
        encoder: the CLIP teacher.
        shards, labels, truth: images and captions; the teachers' labels; exact truth where there is any.
        split: what is evaluated, `test`.
        config, seed: of the tables, generation and bootstrap.
        fit_split: what the trivial answers are fitted on.
    """
    samples = load_samples(shards, labels, truth, split, config.max_samples)
    fitted = load_samples(shards, labels, truth, fit_split, config.max_samples)
    predictions = predict_arrows(any_to_any, samples, config, seed)
    judge = Judge(samples, encoder, config)
    trivial, teacher = trivial_answers(fitted, len(samples)), teacher_answers(samples)
    table: dict[str, dict[str, Figure]] = {}
    for source, targets in arrows_of(samples).items():
        for target in targets:
            name = f"{source}->{target}"
            given = (predictions[source][target], trivial[source][target], teacher[source].get(target))
            table[name] = compare(name, judge.score(source, target), *given, seed=seed, replicates=config.replicates)
    if samples.exact:
        table["rgb->clip"] |= zero_shot(encoder, samples, fitted, predictions["rgb"]["clip"], config, seed)
    reference = "exact truth" if samples.exact else "the teachers' labels (this source has no exact truth)"
    return {"out_of_the_box": table, "samples": len(samples), "reference": reference}


def arrows_of(samples: Samples) -> dict[str, tuple[str, ...]]:
    """Return what is predicted from what: input → targets."""
    there = {target: sources for target, sources in IF_LABELED.items() if target in samples.labels}
    return {source: (*targets, *(t for t, sources in there.items() if source in sources)) for source, targets in ARROWS.items()}


def predict_arrows(any_to_any: Predictor, samples: Samples, config: EvaluationConfig, seed: int) -> Predictions:
    """Return what the student makes of each input: one target at a time, by way of others where `config.arrows` says so."""
    inputs = {"rgb": samples.rgb, "caption": samples.captions}
    predictions: Predictions = {source: {} for source in ARROWS}
    for source, targets in arrows_of(samples).items():
        for target in targets:
            arrow = config.arrows.get(f"{source}->{target}", ArrowConfig())
            asked = [*arrow.via, target]
            generation = arrow.generation.model_copy(update={"chain": bool(arrow.via) or arrow.generation.chain})
            answers = any_to_any.predict({source: inputs[source]}, asked, config=generation, seed=seed)
            predictions[source][target] = answers[target]
    return predictions


def teacher_answers(samples: Samples) -> Predictions:
    """Return what the networks among the labelers said; for caption → image arrows, what the real image gives."""
    labeled = {target: values for target, values in samples.labels.items() if target not in COMPUTED}
    return {"rgb": labeled, "caption": {"semseg": samples.labels["semseg"], "rgb": samples.rgb}}


def zero_shot(
    encoder: ImageTextEncoder, samples: Samples, fitted: Samples, predicted: np.ndarray, config: EvaluationConfig, seed: int
) -> dict[str, Figure]:
    """Return accuracy of the main object's shape and color through predicted CLIP features and texts."""
    truth, known = (main_objects(s.truth["attributes"], tuple(CHOICES)) for s in (samples, fitted))
    pooled = {"value": encoder.pool(predicted), "teacher": encoder.pool(samples.labels["clip"])}
    pooled["shuffled"] = pooled["value"][derangement(len(samples), seed)]
    given = {column: zero_shot_statistics(encoder, features, truth) for column, features in pooled.items()}
    given["trivial"] = majority_statistics(truth, known)
    return figures("rgb->clip/zero_shot", given, seed, config.replicates)


def shown_shapes(classes_HW: np.ndarray, least_share: float) -> set[str]:
    """Return the shapes that cover at least this share of a class map."""
    counts = np.bincount(classes_HW.ravel(), minlength=len(CLASS_NAMES))
    return {CLASS_NAMES[i] for i in OBJECT_IDS if counts[i] > 0 and counts[i] >= least_share * classes_HW.size}
