"""From values to 8-bit gray: the window of the file, one from the configuration, or percentiles of the scan."""

# H rows, W columns

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.medical.scans import Scan, Window

MAX_SAMPLED = 1_000_000  # values of which percentiles are computed
MAX_STRETCH = 16.0  # of a slice whose pixels are not square


class WindowConfig(Config):
    """Which values become black and white. `center` and `width` go together; without them a file decides, then percentiles."""

    center: float | None = None  # in the unit of the values: Hounsfield units of CT
    width: float | None = Field(None, gt=0)
    source: Literal["file", "percentiles"] = "file"  # percentiles: also where the file has a window
    percentiles: tuple[float, float] = (0.5, 99.5)  # of all values of a scan, where neither file nor configuration has a window

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.center is None) != (self.width is None):
            raise ValueError("window needs both center and width, or neither. Give the missing one.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"window.percentiles is {[low, high]}; allowed: 0 <= low < high <= 100.")
        return self


class Windowing:
    """Turns the slices of one scan into gray images."""

    def __init__(self, scan: Scan, config: WindowConfig) -> None:
        self._scan, self._config = scan, config
        self._of_all: Window | None = None
        if config.center is not None and config.width is not None:
            self._of_all = Window(config.center, config.width, "LINEAR_EXACT")
        elif config.source == "file" and scan.bits is not None:
            top = 2**scan.bits - 1
            self._of_all = Window(top / 2, top, "LINEAR_EXACT")
        self._by_percentiles: Window | None = None

    def gray(self, number: int) -> np.ndarray | str:
        """Return a slice as uint8 (H, W) with square pixels, or the reason why there is none."""
        values = self._scan.slices[number]
        if isinstance(values, str):
            return values
        if not np.isfinite(values).all():
            return "slice has values that are not finite (NaN)"
        gray_HW = windowed(values, self._of_all or self._window_of(number))
        return squared(255 - gray_HW if self._scan.inverted else gray_HW, self._scan.spacing)

    def _window_of(self, number: int) -> Window:
        own = self._scan.windows[number]
        if self._config.source == "file" and own is not None:
            return own
        if self._by_percentiles is None:
            self._by_percentiles = _window_of_percentiles(self._scan.slices, self._config.percentiles)
        return self._by_percentiles


def windowed(values_HW: np.ndarray, window: Window) -> np.ndarray:
    """Return values as uint8 gray, rounded: black below the window, white above it (DICOM PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    values = values_HW.astype(np.float64)
    if window.function == "SIGMOID":
        shares = 1 / (1 + np.exp(np.clip(-4 * (values - window.center) / window.width, -700, 700)))
    elif window.function == "LINEAR":
        low = window.center - 0.5 - (window.width - 1) / 2
        shares = (values - low) / (window.width - 1) if window.width > 1 else (values > low).astype(np.float64)
    else:
        shares = (values - window.center) / window.width + 0.5
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def squared(image_HW: np.ndarray, spacing: tuple[float, float], nearest: bool = False) -> np.ndarray:
    """Return an image whose pixels are as high as wide: the axis with the larger distances gets more pixels.

    Args:
        image_HW: gray levels, or class ids with `nearest`.
        spacing: millimeters between rows, and between columns.
        nearest: take the nearest pixel, since a mean of two classes is neither.
    """
    rows, columns = spacing
    if not (np.isfinite(rows) and np.isfinite(columns) and rows > 0 and columns > 0) or abs(rows / columns - 1) < 0.01:
        return image_HW
    height, width = image_HW.shape
    height = round(height * min(max(rows / columns, 1.0), MAX_STRETCH))
    width = round(width * min(max(columns / rows, 1.0), MAX_STRETCH))
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image_HW).resize((width, height), method))


def _window_of_percentiles(slices: Sequence[np.ndarray | str], percentiles: tuple[float, float]) -> Window:
    """Return the window between two percentiles of all finite values of a scan."""
    arrays = [one.ravel() for one in slices if not isinstance(one, str)]
    step = max(1, sum(map(len, arrays)) // MAX_SAMPLED)
    sampled = np.concatenate([one[::step] for one in arrays])
    finite = sampled[np.isfinite(sampled)].astype(np.float64)
    low, high = np.percentile(finite, percentiles) if finite.size else (0.0, 1.0)
    return Window((low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")
