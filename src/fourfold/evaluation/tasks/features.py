"""Image-text features: RGB → CLIP, caption → CLIP, and caption → RGB, which is scored through them."""

# N samples, h w patches, C channels, K choices

from collections.abc import Sequence

import numpy as np

from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.metrics.dense import cosine_statistic, recall_statistic, unit_vectors
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, ratio

COSINE = Metric("cosine", "cosine", "cosine to the teacher's features")
CAPTION_RECALL = Metric("recall_at_k", "caption R@{k}", "the image's caption is among the {k} nearest of all captions")
IMAGE_RECALL = Metric("image_recall_at_k", "image R@{k}", "the real image is among the {k} nearest to the predicted features")
CLIP_RECALL = Metric(
    "clip_recall_at_k", "CLIP R@{k}", "the caption is among the {k} that the text encoder finds nearest to the image"
)


def score_patch_features(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return the cosine to the teacher's features (N, h, w, C) and the retrieval of the own caption among all."""
    encoder, samples = context.text_encoder, context.samples
    cosine = cosine_statistic(predicted, samples.labels["clip"])
    return {"cosine": cosine, "recall_at_1": caption_recall(encoder.pool(predicted), context)}


def score_global_features(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return the cosine to the teacher's embedding (N, C) and the retrieval of the own caption among all."""
    cosine = cosine_statistic(predicted, context.samples.labels["clip_global"])
    return {"cosine": cosine, "recall_at_1": caption_recall(predicted, context)}


def caption_recall(pooled_NC: np.ndarray, context: TaskContext) -> Statistic:
    """Return whether the own caption is the nearest of all; images without a caption do not count, nor do their captions."""
    samples = context.samples
    if samples.is_captioned.all():
        return recall_statistic(pooled_NC, context.text_encoder.encode_text(samples.captions), 1)
    sums_NK = np.zeros((len(samples), 2))
    if samples.is_captioned.any():
        texts_MC = context.text_encoder.encode_text(samples.captioned.captions)
        found = recall_statistic(pooled_NC[samples.is_captioned], texts_MC, 1)
        sums_NK[samples.is_captioned] = found.sums
    return ratio(*sums_NK.T)


def score_features_of_captions(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return the cosine to the embedding (N, C) of the real image, and its retrieval among all by the caption alone."""
    images_NC, k = context.samples.labels["clip_global"], context.config.recall_k
    recall = recall_statistic(predicted, images_NC, k)
    return {"cosine": cosine_statistic(predicted, images_NC), f"image_recall_at_{k}": recall}


def score_images_of_captions(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `clip_recall_at_k`: whether the caption is among the k texts nearest to the image uint8 (N, H, W, 3)."""
    encoder, k = context.text_encoder, context.config.recall_k
    images_NC, texts_NC = encoder.encode_image(predicted)[1], encoder.encode_text(context.samples.captions)
    return {f"clip_recall_at_{k}": recall_statistic(images_NC, texts_NC, k)}


def mean_feature(features: np.ndarray) -> np.ndarray:
    """Return the mean feature of each patch (h, w, C), or of the whole image (C,), float32."""
    return features.astype(np.float32).mean(axis=0)


def text_classifier(encoder: ImageTextEncoder, prompts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return one unit vector per choice, float64 (K, C): the mean of the unit vectors of its prompts.

    This is the prompt ensemble of Radford et al. 2021 (arXiv 2103.00020, section 3.1.4).
    """
    rows = [unit_vectors(encoder.encode_text(list(texts))).mean(axis=0) for texts in prompts]
    return unit_vectors(np.stack(rows))


def choice_similarities(pooled_NC: np.ndarray, classifier_KC: np.ndarray) -> np.ndarray:
    """Return the cosine of global features with each choice of a classifier, float64 (N, K)."""
    return unit_vectors(pooled_NC) @ classifier_KC.T


FEATURE_TASKS = (
    PredictionTask(
        source="rgb",
        target="clip",
        metrics=(COSINE, CAPTION_RECALL),
        score=score_patch_features,
        trivial=lambda fitted: mean_feature(fitted.labels["clip"]),
        teacher=lambda context: context.samples.labels["clip"],
        against_teacher=("cosine",),
        labels=("clip",),
        needs_encoder=True,
        gallery_title="CLIP features",
    ),
    PredictionTask(
        source="rgb",
        target="clip_global",
        metrics=(COSINE, CAPTION_RECALL),
        score=score_global_features,
        trivial=lambda fitted: mean_feature(fitted.labels["clip_global"]),
        teacher=lambda context: context.samples.labels["clip_global"],
        against_teacher=("cosine",),
        labels=("clip_global",),
        needs_encoder=True,
    ),
    PredictionTask(
        source="caption",
        target="clip_global",
        metrics=(COSINE, IMAGE_RECALL),
        score=score_features_of_captions,
        trivial=lambda fitted: mean_feature(fitted.labels["clip_global"]),
        labels=("clip_global",),
    ),
    PredictionTask(
        source="caption",
        target="rgb",
        metrics=(CLIP_RECALL,),
        score=score_images_of_captions,
        trivial=lambda fitted: np.round(fitted.rgb.mean(axis=0)).astype(np.uint8),
        teacher=lambda context: context.samples.rgb,  # the real image
        needs_encoder=True,
        headline=True,
        gallery_title="image",
    ),
)
