"""Color palettes: the pixels of an image in 1 to 7 clusters, the largest cluster first (4M-21, arXiv 2406.09406)."""

import warnings
from typing import Any

import numpy as np
from pydantic import Field
from scipy.cluster.vq import kmeans2

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch, Labeler
from fourfold.seeds import numpy_generator


class PaletteConfig(Config):
    """Settings of the clustering."""

    max_colors: int = Field(7, ge=1, le=32)  # of the largest palette
    max_pixels: int = Field(1024, ge=16)  # clustered pixels, evenly spaced in the image
    iterations: int = Field(10, ge=1)


class ColorPalettes(Labeler):
    """Labels `color_palette`."""

    name, title, modality = "color_palettes", "Color palettes by k-means", "color_palette"
    config_class = PaletteConfig
    config: PaletteConfig

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return, for each image, a palette for each number of colors: `{"1": [[r, g, b]], "2": ...}`."""
        return [palettes(rgb_HW3, self.config) for rgb_HW3 in batch["rgb"]]


def palettes(rgb_HW3: np.ndarray, config: PaletteConfig) -> dict[str, list[list[int]]]:
    """Return the palettes of an image uint8 (H, W, 3); an image of few colors has no palette with more colors.

    Equal pixels give equal palettes: k-means++ starts from a fixed seed.
    """
    pixels_N3 = rgb_HW3.reshape(-1, 3).astype(np.float64)
    pixels_N3 = pixels_N3[:: -(-len(pixels_N3) // config.max_pixels)]
    num_colors = min(config.max_colors, len(np.unique(pixels_N3, axis=0)))
    return {str(size): _palette(pixels_N3, size, config.iterations) for size in range(1, num_colors + 1)}


def _palette(pixels_N3: np.ndarray, size: int, iterations: int) -> list[list[int]]:
    rng = numpy_generator(0, "palette", size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster keeps its color and comes last
        colors_K3, nearest_N = kmeans2(pixels_N3, size, iter=iterations, minit="++", rng=rng)
    counts_K = np.bincount(nearest_N, minlength=size)
    return np.rint(colors_K3[(-counts_K).argsort(kind="stable")]).astype(int).tolist()
