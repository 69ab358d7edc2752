"""How much each tokenizer loses: what comes back compared with what went in, and how much of its codebook is used."""

from collections.abc import Callable

import numpy as np

from fourfold.data.scenes import GROUND_ID, SKY_ID
from fourfold.data.shards import ShardSet
from fourfold.evaluation.metrics import cosine_statistic, depth_errors, miou, normal_angles, psnr
from fourfold.evaluation.statistics import value
from fourfold.tokenizers.text import TOKENS_PER_BOX
from fourfold.tokenizers.tokenizer_set import DecoderKind, TokenizerSet
from fourfold.tokenizers.train_set import FROM_THE_SOURCE, load_values

Figures = dict[str, float]
DECODERS: tuple[DecoderKind, ...] = ("vq", "diffusion")


def measure_tokenizers(
    tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str = "val", max_samples: int = 1000
) -> Figures:
    """Return figures of reconstruction against the *labels* (the ceiling of any student that predicts these tokens).

    `rgb/psnr` (dB) · `depth/abs_rel`, `depth/delta1`, `normal/mean_angle` (degrees), all outside the sky, and
    `depth/abs_rel_objects`, `normal/mean_angle_objects` · `semseg/miou`, `semseg/miou_objects` · `clip/cosine`, and that of
    pooled features, `clip/cosine_pooled` · for each label `codebook_use` (share of the codes that occur in the split) and
    `perplexity` · `caption/cut`, `det/cut`: shares of samples too long for their sequence. Where there is a diffusion decoder:
    the label's figures as `<label>/diffusion/...` and, of the same tokens through the VQ-VAE's own decoder, `<label>/vq/...`.
    """
    semseg = load_values(labels, split, "semseg", max_samples)
    figures: Figures = {}
    for name, tokenizer in tokenizers.visual.items():
        truth = load_values(shards if name in FROM_THE_SOURCE else labels, split, name, max_samples)
        tokens = tokenizers.tokens(name, truth)
        found = _MEASURES[name](tokenizers.decode(name, tokens), truth, semseg, tokenizers.config.num_classes)
        found |= codebook_figures(tokens, tokenizer.vocabulary_size)
        figures |= {f"{name}/{key}": figure for key, figure in found.items()}
        if name in tokenizers.diffusion:
            figures |= _both_decoders(tokenizers, name, tokens, truth, semseg)
    return figures | _cut_shares(tokenizers, shards, labels, split, max_samples)


def _both_decoders(tokenizers: TokenizerSet, name: str, tokens: np.ndarray, truth: np.ndarray, semseg: np.ndarray) -> Figures:
    few = slice(tokenizers.diffusion[name].config.num_measured)
    figures: Figures = {}
    for decoder in DECODERS:
        decoded = tokenizers.decode(name, tokens[few], decoder)
        found = _MEASURES[name](decoded, truth[few], semseg[few], tokenizers.config.num_classes)
        figures |= {f"{name}/{decoder}/{key}": figure for key, figure in found.items()}
    return figures


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


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], Figures]] = {
    "rgb": _rgb,
    "depth": _depth,
    "normal": _normal,
    "semseg": _semseg,
    "clip": _clip,
}


def _cut_shares(tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, split: str, max_samples: int) -> Figures:
    lengths = tokenizers.lengths()
    captions = shards.load_column(split, "caption")[:max_samples]
    boxes = labels.load_column(split, "det")[:max_samples]
    long = [len(tokenizers.text.encode_caption(text)) > lengths["caption"] for text in captions]
    many = [len(value["instances"]) * TOKENS_PER_BOX > lengths["det"] for value in boxes]
    return {"caption/cut": float(np.mean(long)), "det/cut": float(np.mean(many))}
