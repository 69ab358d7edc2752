"""Labels of one file for each image: depth, normals, class ids, edges, features, vectors, as PNG or `.npy`.

Maps are cropped and resized as ingestion does with the images: the center square, then the stored size. Values are taken from
the nearest pixel, since a mean of two classes or of two depths across an edge is neither.
"""

# H, W pixels of the stored image

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from fourfold.configuration import Config
from fourfold.labelers.depths import meters_of_metric
from fourfold.labelers.precomputed.files import files_by_key, listing_digest, require_all
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext
from fourfold.modalities.class_table import MAX_ID, ClassTable

EXTENSIONS = (".npy", ".png")


class PrecomputedConfig(Config):
    """Where the labels are."""

    path: str = Field(min_length=1)  # a folder with a file for each image: the same name, with .png or .npy
    license: str | None = None  # of the labels


class DepthConfig(PrecomputedConfig):
    """Settings of depth."""

    scale: float = Field(1.0, gt=0)  # meters that the value 1 means: 0.001 for millimeters


class ClassesConfig(PrecomputedConfig):
    """Settings of class ids."""

    classes: tuple[str, ...] = Field(min_length=2)  # names by id
    things: tuple[str, ...] = ()  # classes of countable objects
    background: tuple[str, ...] = ()  # classes without a surface at a finite distance
    ignored: tuple[int, ...] = ()  # ids without a label in the files; they are stored as 255


class PrecomputedMap(Labeler):
    """Reads one file for each image."""

    kind = "precomputed"
    config: PrecomputedConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.files = files_by_key(self.folder, EXTENSIONS)

    @classmethod
    def require(cls, config: PrecomputedConfig) -> None:
        """Raise ValueError when the folder does not exist or is empty."""
        files_by_key(Path(config.path).expanduser(), EXTENSIONS)

    @property
    def folder(self) -> Path:
        """The folder of the labels."""
        return Path(self.config.path).expanduser()

    def origin(self) -> dict[str, Any]:
        """Return folder, license and a digest of the list of files."""
        digest = listing_digest(self.folder, EXTENSIONS)
        return {"kind": self.kind, "model": self.config.path, "license": self.config.license, "sha256": digest}

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return the stored values.

        Raises:
            ValueError: an image has no file, or a file cannot be read or is of another kind.
        """
        require_all(batch["__key__"], self.files, self.folder)
        return [self._read(self.files[key], rgb.shape[:2]) for key, rgb in zip(batch["__key__"], batch["rgb"], strict=True)]

    def _read(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        values = read_array(path)
        try:
            return self.stored(values, size)
        except (ValueError, IndexError, TypeError) as error:
            shape = f"{values.dtype} {values.shape}"
            raise ValueError(f"{path} has {shape}, which is no {self.modality} label. {error} Correct the file.") from error

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return a label in the format of the shards."""
        raise NotImplementedError


class PrecomputedDepth(PrecomputedMap):
    """Labels `depth`."""

    name, title, modality = "precomputed_depth", "Depth that comes with the data", "depth"
    config_class = DepthConfig
    config: DepthConfig

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return float16 (H, W), meters."""
        return meters_of_metric(fitted(_flat(values), size) * np.float32(self.config.scale)).astype(np.float16)


class PrecomputedClasses(PrecomputedMap):
    """Labels `semseg`."""

    name, title, modality = "precomputed_semseg", "Segmentation that comes with the data", "semseg"
    config_class = ClassesConfig
    config: ClassesConfig

    @classmethod
    def class_table(cls, config: ClassesConfig) -> ClassTable:
        """Return the configured classes."""
        ids = {name: number for number, name in enumerate(config.classes)}
        if unknown := sorted({*config.things, *config.background} - set(ids)):
            raise ValueError(f"{', '.join(unknown)}: not among `classes`. Correct things or background.")
        things, background = (tuple(sorted(ids[name] for name in names)) for names in (config.things, config.background))
        ignored = (MAX_ID,) if config.ignored else ()
        return ClassTable(names=config.classes, things=things, background=background, ignored=ignored)

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (H, W), class ids."""
        ids_HW = fitted(_flat(values), size)
        ids_HW = np.where(np.isin(ids_HW, self.config.ignored), MAX_ID, ids_HW)
        self.class_table(self.config).check_ids(ids_HW)
        return ids_HW.astype(np.uint8)


class PrecomputedNormals(PrecomputedMap):
    """Labels `normal`: PNG as (n + 1) · 127.5, `.npy` as numbers from -1 to 1 or as bytes."""

    name, title, modality = "precomputed_normal", "Normals that come with the data", "normal"
    config_class = PrecomputedConfig

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (H, W, 3)."""
        if values.ndim != 3 or values.shape[-1] != 3:
            raise ValueError("It needs three channels.")
        vectors = fitted(values, size).astype(np.float32)
        vectors = vectors / 127.5 - 1 if values.dtype == np.uint8 else vectors
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-6)
        return (vectors * 127.5 + 127.5).round().astype(np.uint8)


class PrecomputedFeatures(PrecomputedMap):
    """Labels a modality of patch features (h, w, C), stored as they are."""

    config_class = PrecomputedConfig

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return float16 (h, w, C)."""
        if values.ndim != 3:
            raise ValueError("It needs three axes: rows, columns, channels.")
        return values.astype(np.float16)


class PrecomputedVector(PrecomputedMap):
    """Labels a modality of vectors (C,), which get unit length."""

    config_class = PrecomputedConfig

    def stored(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return float16 (C,)."""
        if values.ndim != 1 or not np.linalg.norm(values) > 0:
            raise ValueError("It needs one axis, and a length above zero.")
        vector = values.astype(np.float32)
        return (vector / np.linalg.norm(vector)).astype(np.float16)


class PrecomputedClip(PrecomputedFeatures):
    """Labels `clip`."""

    name, title, modality = "precomputed_clip", "Patch features that come with the data", "clip"


class PrecomputedDino(PrecomputedFeatures):
    """Labels `dinov2`."""

    name, title, modality = "precomputed_dinov2", "DINO features that come with the data", "dinov2"


class PrecomputedClipVector(PrecomputedVector):
    """Labels `clip_global`."""

    name, title, modality = "precomputed_clip_global", "Image embeddings that come with the data", "clip_global"


MAP_LABELERS = (
    PrecomputedDepth,
    PrecomputedClasses,
    PrecomputedNormals,
    PrecomputedClip,
    PrecomputedDino,
    PrecomputedClipVector,
)


def read_array(path: Path) -> np.ndarray:
    """Return the values of a PNG (of a palette: its indices) or of a `.npy` file; pickled objects are refused.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a label: {error}. Replace it.") from error


def fitted(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the center of a map (h, w, ...) in the aspect of `size` (H, W), at that size: the value of the nearest pixel."""
    H, W = size
    h, w = values.shape[:2]
    scale = min(h / H, w / W)  # pixels of the map for one of the image
    rows = ((np.arange(H) + 0.5) * scale + (h - H * scale) / 2).astype(int)
    columns = ((np.arange(W) + 0.5) * scale + (w - W * scale) / 2).astype(int)
    return values[rows[:, None], columns]


def _flat(values: np.ndarray) -> np.ndarray:
    """Return a map with one value for each pixel."""
    if values.ndim == 3 and values.shape[-1] == 1:
        return values[..., 0]
    if values.ndim != 2:
        raise ValueError("It needs one value for each pixel.")
    return values
