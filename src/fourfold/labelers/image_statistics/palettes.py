"""Color palettes: the pixels of an image in 1 to 7 clusters (4M-21), the largest cluster first."""

import warnings
from typing import Any

import numpy as np
from pydantic import Field
from scipy.cluster.vq import kmeans2

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch
from fourfold.seeds import numpy_generator


class PaletteConfig(Config):
    """Settings of the clustering."""

    max_colors: int = Field(7, ge=1, le=32)  # palettes of 1 to so many
    max_pixels: int = Field(1024, ge=16)  # that are clustered, evenly spaced in the image
    iterations: int = Field(10, ge=1)


class ColorPalettes:
    """The labeler of `color_palette`."""

    name, modality, version = "color_palettes", "color_palette", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, config: PaletteConfig) -> None:
        self.config = config

    def label(self, batch: Batch) -> list[dict[str, Any]]:
        """Return a palette by its number of colors of each picture: `{"1": [[r, g, b]], "2": ...}`."""
        return [palettes(rgb_HW3, self.config) for rgb_HW3 in batch["rgb"]]


def palettes(rgb_HW3: np.ndarray, config: PaletteConfig) -> dict[str, list[list[int]]]:
    """Return the palettes of a picture uint8 (H, W, 3); one of few colors has no larger palettes than it has colors.

    The same pixels give the same palettes: k-means++ starts from a fixed seed.
    """
    pixels_N3 = rgb_HW3.reshape(-1, 3).astype(np.float64)
    pixels_N3 = pixels_N3[:: -(-len(pixels_N3) // config.max_pixels)]
    num_colors = min(config.max_colors, len(np.unique(pixels_N3, axis=0)))
    return {str(size): _palette(pixels_N3, size, config.iterations) for size in range(1, num_colors + 1)}


def _palette(pixels_N3: np.ndarray, size: int, iterations: int) -> list[list[int]]:
    rng = numpy_generator(0, "palette", size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster: it keeps its color and comes last
        colors_K3, nearest_N = kmeans2(pixels_N3, size, iter=iterations, minit="++", rng=rng)
    counts_K = np.bincount(nearest_N, minlength=size)
    return np.rint(colors_K3[(-counts_K).argsort(kind="stable")]).astype(int).tolist()
