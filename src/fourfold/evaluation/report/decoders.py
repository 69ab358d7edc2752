"""The two decoders of one tokenizer side by side: the same tokens through the VQ-VAE's and through the diffusion decoder."""

# N samples, L tokens, H height, W width

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fourfold.images import Drawing, draw

if TYPE_CHECKING:
    from fourfold.evaluation.samples import Samples
    from fourfold.tokenizers.tokenizer_set import TokenizerSet


@dataclass(frozen=True)
class DecoderRow:
    """One label of a few samples as images uint8 (H, W, 3): the original, and what each decoder returns."""

    name: str
    keys: list[str]
    images: dict[str, list[np.ndarray]]  # original, vq, diffusion → one per sample


def collect_decoders(tokenizers: "TokenizerSet", samples: "Samples") -> list[DecoderRow]:
    """Return a row for each label that has a diffusion decoder; none by default."""
    rows = []
    drawing = Drawing(class_table=samples.class_table)
    for name in tokenizers.diffusion:
        originals = samples.rgb if name == "rgb" else samples.labels[name]
        tokens_NL = tokenizers.tokens(name, originals)
        values = {
            "original": originals,
            "vq": tokenizers.decode(name, tokens_NL),
            "diffusion": tokenizers.decode(name, tokens_NL, "diffusion"),
        }
        drawn = {role: [_image(name, value, drawing) for value in column] for role, column in values.items()}
        rows.append(DecoderRow(name, samples.keys, drawn))
    return rows


def decoder_metrics(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of the table, `{"label", "metric", "vq", "diffusion"}`, from `<label>/<decoder>/<metric>`."""
    rows = []
    for key, value in metrics.items():
        label, _, rest = key.partition("/")
        decoder, _, metric = rest.partition("/")
        if decoder == "diffusion" and metric:
            rows.append({"label": label, "metric": metric, "vq": metrics[f"{label}/vq/{metric}"], "diffusion": value})
    return rows


def without_decoders(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that do not belong to one of two decoders."""
    return {key: value for key, value in metrics.items() if key.count("/") < 2}


def _image(name: str, value: np.ndarray, drawing: Drawing) -> np.ndarray:
    image = draw(name, value, drawing)
    return np.repeat(value[..., None], 3, axis=-1) if image is None else image
