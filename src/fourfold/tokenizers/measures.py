"""How much each tokenizer loses: what comes back compared with what went in, and how much of its codebook is used."""

from collections.abc import Callable

import numpy as np

from fourfold.data.crops import resized
from fourfold.data.shards import ShardSet
from fourfold.metrics.dense import cosine_statistic, depth_errors, edge_statistic, miou, normal_angles, psnr
from fourfold.metrics.statistics import value
from fourfold.modalities import label
from fourfold.scenes.world import GROUND_ID, SKY_ID
from fourfold.tokenizers.text.tokenizer import TOKENS_PER_BOX
from fourfold.tokenizers.tokenizer_set import DecoderKind, TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import FROM_THE_SOURCE, load_values
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer

Figures = dict[str, float]
DECODERS: tuple[DecoderKind, ...] = ("vq", "diffusion")


def measure_tokenizers(
    tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str = "val", max_samples: int = 1000
) -> Figures:
    """Return figures of reconstruction against the *labels* (the ceiling of any student that predicts these tokens).

    `rgb/psnr` (dB) · `depth/abs_rel`, `depth/delta1`, `normal/mean_angle` (degrees), all outside the sky, and
    `depth/abs_rel_objects`, `normal/mean_angle_objects` · `semseg/miou`, `semseg/miou_objects` · `clip/cosine`, and that of
    pooled features, `clip/cosine_pooled` · global vectors: `cosine` · edges: `f1` · other kinds: `mae` · for each label
    `codebook_use` (share of the codes that occur in the split) and `perplexity` · `caption/cut`, `det/cut` and that of other
    sequences: shares of samples too long for them. Where there is a diffusion decoder: the label's figures as
    `<label>/diffusion/...` and, of the same tokens through the VQ-VAE's own decoder, `<label>/vq/...`. A label at another
    resolution has figures of its own, `rgb@32/psnr`.
    """
    semseg = load_values(labels, split, "semseg", max_samples)
    figures: Figures = {}
    for name, tokenizer in tokenizers.visual.items():
        stored = load_values(shards if name in FROM_THE_SOURCE else labels, split, name, max_samples)
        for side in (None, *tokenizers.config.resolutions.get(name, ())):
            known = name if side is None else f"{name}@{side}"
            truth, classes = (v if side is None else resized(n, v, side) for n, v in ((name, stored), ("semseg", semseg)))
            tokens = tokenizers.tokens(known, truth)
            found = _measured(name, tokenizers.decode(known, tokens), truth, classes, tokenizers.config.num_classes)
            found |= codebook_figures(_ids(tokens, tokenizer), tokenizer.num_codes)
            figures |= {f"{known}/{key}": figure for key, figure in found.items()}
            if name in tokenizers.diffusion and side is None:
                figures |= _both_decoders(tokenizers, name, tokens, truth, semseg)
    return figures | _cut_shares(tokenizers, shards, labels, split, max_samples)


def _both_decoders(tokenizers: TokenizerSet, name: str, tokens: np.ndarray, truth: np.ndarray, semseg: np.ndarray) -> Figures:
    few = slice(tokenizers.diffusion[name].config.num_measured)
    figures: Figures = {}
    for decoder in DECODERS:
        decoded = tokenizers.decode(name, tokens[few], decoder)
        found = _measured(name, decoded, truth[few], semseg[few], tokenizers.config.num_classes)
        figures |= {f"{name}/{decoder}/{key}": figure for key, figure in found.items()}
    return figures


def _ids(tokens_BL: np.ndarray, tokenizer: VisualTokenizer) -> np.ndarray:
    """Return ids that tell all codes of a tokenizer apart: each token of a global vector has a codebook of its own."""
    if tokenizer.num_codes == tokenizer.vocabulary_size:
        return tokens_BL
    return tokens_BL + tokenizer.vocabulary_size * np.arange(tokens_BL.shape[1])


def codebook_figures(tokens: np.ndarray, num_codes: int) -> Figures:
    """Return the share of codes that occur and the perplexity (exponential of the entropy) of the codes' frequencies."""
    counts = np.bincount(tokens.ravel(), minlength=num_codes)
    shares = counts[counts > 0] / counts.sum()
    return {"codebook_use": float((counts > 0).mean()), "perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}


def _rgb(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    return {"psnr": psnr(found, truth)}


def _depth(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    objects = depth_errors(found, truth, semseg > GROUND_ID)
    return {**depth_errors(found, truth, semseg != SKY_ID), "abs_rel_objects": objects["abs_rel"]}


def _normal(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    return normal_angles(found, truth, semseg != SKY_ID, semseg > GROUND_ID)


def _semseg(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    objects = list(range(GROUND_ID + 1, num_classes))
    return {"miou": miou(found, truth, num_classes), "miou_objects": miou(found, truth, num_classes, objects)}


def _clip(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    pooled = (values.astype(np.float64).mean(axis=(1, 2)) for values in (found, truth))  # what is compared with text
    return {"cosine": value(cosine_statistic(found, truth)), "cosine_pooled": value(cosine_statistic(*pooled))}


def _vector(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    return {"cosine": value(cosine_statistic(found, truth))}


def _plain(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    """Of a kind that has no measure of its own: the mean absolute error, in the unit of the values."""
    return {"mae": float(np.abs(found.astype(np.float64) - truth.astype(np.float64)).mean())}


def _edges(found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    return {"f1": value(edge_statistic(found, truth))}


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], Figures]] = {  # by the kind of a label
    "image": _rgb,
    "depth": _depth,
    "normals": _normal,
    "classes": _semseg,
    "features": _clip,
    "edges": _edges,
    "vector": _vector,
}


def _measured(name: str, found: np.ndarray, truth: np.ndarray, semseg: np.ndarray, num_classes: int) -> Figures:
    return _MEASURES.get(label(name).kind, _plain)(found, truth, semseg, num_classes)


def _cut_shares(tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str, max_samples: int) -> Figures:
    """Return which share of the samples is longer than its sequence may be; of boxes, has more than there is room for."""
    found: Figures = {}
    for name, sequence in tokenizers.sequences.items():
        values = (shards if name in FROM_THE_SOURCE else labels).load_column(split, name)[:max_samples]
        if name == "det":
            long = [len(value["instances"]) * TOKENS_PER_BOX > sequence.max_tokens for value in values]
        else:
            long = [len(sequence.encode(value)) > sequence.max_tokens for value in values]
        found[f"{name}/cut"] = float(np.mean(long))
    return found
