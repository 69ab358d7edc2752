"""Reconstruction quality of each tokenizer, and how much of its codebook is used."""

# B samples, L tokens, H W pixels

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from fourfold.data.crops import resized
from fourfold.data.manifests import CAPTION
from fourfold.data.shards import ShardSet
from fourfold.metrics.dense import cosine_statistic, depth_errors, edge_statistic, miou, normal_angles, psnr
from fourfold.metrics.statistics import defined, value
from fourfold.modalities import ClassTable, label
from fourfold.tokenizers.stored_values import (
    SEGMENTATION,
    captions_set,
    incomplete_keys,
    load_values,
    present_values,
    shards_of,
)
from fourfold.tokenizers.tokenizer_set import DecoderKind, TokenizerSet
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer

Metrics = dict[str, float]
DECODERS: tuple[DecoderKind, ...] = ("vq", "diffusion")


@dataclass(frozen=True)
class Segmentation:
    """Class ids of the measured samples, and what they mean: which pixels have a surface, which belong to objects.

    Without a table nothing is known of the pixels: all have a surface, and none is known to belong to an object.
    """

    ids_BHW: np.ndarray
    table: ClassTable | None

    @property
    def surfaces_BHW(self) -> np.ndarray:
        """True where there is a surface at a finite distance."""
        return np.ones(self.ids_BHW.shape, bool) if self.table is None else ~self.table.is_background(self.ids_BHW)

    @property
    def objects_BHW(self) -> np.ndarray:
        """True on countable objects."""
        return np.isin(self.ids_BHW, () if self.table is None else self.table.things)

    def first(self, count: int) -> "Segmentation":
        """Return that of the first `count` samples."""
        return Segmentation(self.ids_BHW[:count], self.table)

    def at(self, side: int | None) -> "Segmentation":
        """Return that of images resized to `side` × `side` pixels; None keeps the stored size."""
        return self if side is None else Segmentation(resized(SEGMENTATION, self.ids_BHW, side), self.table)


def measure_tokenizers(
    tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str = "val", max_samples: int = 1000
) -> Metrics:
    """Return metrics of reconstructions against the *labels*: the ceiling of any model that predicts these tokens.

    - `rgb/psnr` (dB)
    - `depth/abs_rel`, `depth/delta1`, `normal/mean_angle` (degrees) where there is a surface, and
      `depth/abs_rel_objects`, `normal/mean_angle_objects` on objects alone
    - `semseg/miou`, `semseg/miou_objects`
    - `clip/cosine` and, of features averaged over the image, `clip/cosine_pooled`; global vectors: `cosine`
    - edges: `f1`; other kinds: `mae`, in the unit of the values
    - for each label `codebook_use` (share of the codes that occur in the split) and `perplexity`
    - `caption/cut`, `det/cut` and those of other sequences: shares of samples that are too long for them

    Where a label has a diffusion decoder, its metrics are also reported as `<label>/diffusion/...` and, for the same
    tokens through the VQ-VAE's own decoder, `<label>/vq/...`. A label at another resolution has separate metrics,
    `rgb@32/psnr`.

    Without a segmentation among the labels, surfaces are all pixels, and metrics on objects are absent. Samples that lack a
    dense label are left out.

    Raises:
        ValueError: the labels have a segmentation whose manifest has no class table.
    """
    present = labels.modalities(split)
    without = incomplete_keys(labels, split, [name for name in present if name == SEGMENTATION or name in tokenizers.visual])
    segmentation = _segmentation(shards, labels, split, max_samples, without)
    metrics: Metrics = {}
    for name, tokenizer in tokenizers.visual.items():
        stored = load_values(shards_of(name, shards, labels), split, name, max_samples, without)
        for side in (None, *tokenizers.config.resolutions.get(name, ())):
            full_name = name if side is None else f"{name}@{side}"
            truth = stored if side is None else resized(name, stored, side)
            tokens = tokenizers.tokens(full_name, truth)
            measured = _measure(name, tokenizers.decode(full_name, tokens), truth, segmentation.at(side))
            measured |= codebook_metrics(_distinct_ids(tokens, tokenizer), tokenizer.num_codes)
            metrics |= {f"{full_name}/{key}": figure for key, figure in measured.items()}
            if name in tokenizers.diffusion and side is None:
                metrics |= _both_decoders(tokenizers, name, tokens, truth, segmentation)
    return defined(metrics | _cut_shares(tokenizers, shards, labels, split, max_samples))


def _segmentation(shards: ShardSet, labels: ShardSet, split: str, max_samples: int, without: Collection[str]) -> Segmentation:
    if SEGMENTATION not in labels.modalities(split):
        return Segmentation(np.zeros(load_values(shards, split, "rgb", max_samples, without).shape[:3], np.uint8), None)
    ids_BHW = load_values(labels, split, SEGMENTATION, max_samples, without)
    return Segmentation(ids_BHW, labels.class_table(split, SEGMENTATION))


def codebook_metrics(tokens: np.ndarray, num_codes: int) -> Metrics:
    """Return the share of codes that occur, and the perplexity: the exponential of the entropy of their frequencies."""
    if not tokens.size:
        return {}
    counts = np.bincount(tokens.ravel(), minlength=num_codes)
    shares = counts[counts > 0] / counts.sum()
    return {"codebook_use": float((counts > 0).mean()), "perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}


def _both_decoders(
    tokenizers: TokenizerSet, name: str, tokens_BL: np.ndarray, truth: np.ndarray, segmentation: Segmentation
) -> Metrics:
    """Measure both decoders on the same few samples: the diffusion decoder is many times slower."""
    count = tokenizers.diffusion[name].config.num_measured
    metrics: Metrics = {}
    for decoder in DECODERS:
        decoded = tokenizers.decode(name, tokens_BL[:count], decoder)
        measured = _measure(name, decoded, truth[:count], segmentation.first(count))
        metrics |= {f"{name}/{decoder}/{key}": figure for key, figure in measured.items()}
    return metrics


def _distinct_ids(tokens_BL: np.ndarray, tokenizer: VisualTokenizer) -> np.ndarray:
    """Return ids that differ for all codes of a tokenizer: each token of a global vector has a separate codebook."""
    if tokenizer.num_codes == tokenizer.vocabulary_size:
        return tokens_BL
    return tokens_BL + tokenizer.vocabulary_size * np.arange(tokens_BL.shape[1])


def _rgb(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return {"psnr": psnr(decoded, truth)}


def _depth(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    objects = depth_errors(decoded, truth, segmentation.objects_BHW)
    return {**depth_errors(decoded, truth, segmentation.surfaces_BHW), "abs_rel_objects": objects["abs_rel"]}


def _normal(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return normal_angles(decoded, truth, segmentation.surfaces_BHW, segmentation.objects_BHW)


def _semseg(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    table = segmentation.table
    assert table is not None, "what is decoded are class ids"
    objects = miou(decoded, truth, table.num_classes, list(table.things))
    return {"miou": miou(decoded, truth, table.num_classes), "miou_objects": objects}


def _features(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    pooled = (features.astype(np.float64).mean(axis=(1, 2)) for features in (decoded, truth))  # CLIP compares these with text
    return {"cosine": value(cosine_statistic(decoded, truth)), "cosine_pooled": value(cosine_statistic(*pooled))}


def _vector(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return {"cosine": value(cosine_statistic(decoded, truth))}


def _edges(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return {"f1": value(edge_statistic(decoded, truth))}


def _absolute_error(decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return {"mae": float(np.abs(decoded.astype(np.float64) - truth.astype(np.float64)).mean())}


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, Segmentation], Metrics]] = {  # by the kind of a label
    "image": _rgb,
    "depth": _depth,
    "normals": _normal,
    "classes": _semseg,
    "features": _features,
    "edges": _edges,
    "vector": _vector,
}


def _measure(name: str, decoded: np.ndarray, truth: np.ndarray, segmentation: Segmentation) -> Metrics:
    return _MEASURES.get(label(name).kind, _absolute_error)(decoded, truth, segmentation)


def _cut_shares(tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str, max_samples: int) -> Metrics:
    """Return the share of samples that do not fit their sequence."""
    metrics: Metrics = {}
    for name, sequence in tokenizers.sequences.items():
        holder = captions_set(shards, labels, split) if name == CAPTION else shards_of(name, shards, labels)
        values = present_values(holder, split, name, max_samples)
        is_cut = [not sequence.fits(one) for one in values]
        metrics |= {f"{name}/cut": float(np.mean(is_cut))} if is_cut else {}
    return metrics
