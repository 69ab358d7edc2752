"""The two decoders of one tokenizer side by side: the same codes through the VQ-VAE's own and through the diffusion decoder."""

# N samples, L tokens, H W pixels

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fourfold.evaluation.report import images as pictures
from fourfold.evaluation.report.gallery import FARTHEST, NEAREST

if TYPE_CHECKING:
    from fourfold.evaluation.samples import Samples
    from fourfold.tokenizers.tokenizer_set import TokenizerSet


@dataclass(frozen=True)
class DecoderRow:
    """One label's pictures, uint8 (H, W, 3), of a few samples: what went in, and what each decoder made of its tokens."""

    name: str
    keys: list[str]
    pictures: dict[str, list[np.ndarray]]  # original, vq, diffusion → one a sample


def collect_decoders(tokenizers: "TokenizerSet", samples: "Samples") -> list[DecoderRow]:
    """Return a row for each label that has a diffusion decoder; none by default. Samples are not picked."""
    rows = []
    for name in tokenizers.diffusion:
        values = samples.rgb if name == "rgb" else samples.labels[name]
        tokens_NL = tokenizers.tokens(name, values)
        made = {
            "original": values,
            "vq": tokenizers.decode(name, tokens_NL),
            "diffusion": tokenizers.decode(name, tokens_NL, "diffusion"),
        }
        drawn = {who: [_PICTURES.get(name, _gray)(value) for value in some] for who, some in made.items()}
        rows.append(DecoderRow(name, samples.keys, drawn))
    return rows


def decoder_figures(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of the table: `{"label", "metric", "vq", "diffusion"}`, from `<label>/<decoder>/<metric>`."""
    rows = []
    for key, value in figures.items():
        label, _, rest = key.partition("/")
        decoder, _, metric = rest.partition("/")
        if decoder == "diffusion" and metric:
            rows.append({"label": label, "metric": metric, "vq": figures[f"{label}/vq/{metric}"], "diffusion": value})
    return rows


def without_decoders(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are not of one decoder."""
    return {key: value for key, value in figures.items() if key.count("/") < 2}


def _gray(value_HW: np.ndarray) -> np.ndarray:
    return np.repeat(value_HW[..., None], 3, axis=-1)


_PICTURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rgb": lambda value: value,
    "depth": lambda value: pictures.depth_picture(value, NEAREST, FARTHEST),
    "normal": pictures.normal_picture,
}
