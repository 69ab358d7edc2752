"""Labelers of kind `medical`: other scans of the same visit, and masks, at the slices that the source cut out of the image.

They come with the data, as those of kind `precomputed` do: fine-tuning may learn from them.
"""

# H rows, W columns of the stored image

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.labelers.precomputed.maps import fitted
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext
from fourfold.medical.layout import ScanFiles, ScanFilesConfig, require_folder, require_packages
from fourfold.medical.privacy import SliceName
from fourfold.medical.scans import Scan, Unreadable
from fourfold.medical.windows import WindowConfig, Windowing, squared
from fourfold.modalities.class_table import MAX_ID, ClassTable

PRECOMPUTED = "precomputed"  # the kind that manifests name: labels that come with the data
OPEN_SCANS = 2  # in memory: an image and the scan that is aligned with it


class ScanLabelerConfig(ScanFilesConfig):
    """Where the scans of a modality are; `path`, `pattern`, `image`, `plane` and `salt_file` are those of the source."""

    modality: str | None = None  # the {modality} of its files; None: the name of the label
    window: WindowConfig = WindowConfig()


class MaskConfig(ScanFilesConfig):
    """Settings of masks."""

    modality: str = "mask"  # the {modality} of their files
    classes: tuple[str, ...] = Field(min_length=2)  # names; the first is what is not marked
    values: tuple[int, ...] = ()  # of the classes in the files; (): 0, 1, 2, ...
    ignored: tuple[int, ...] = ()  # values without a class


class AlignedLabeler(Labeler):
    """Finds the slice of another scan of the same visit."""

    kind = "medical"
    config: Any

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.scans = ScanFiles(self.config)
        self._read = lru_cache(OPEN_SCANS)(self._read_scan)

    @classmethod
    def require(cls, config: Any) -> None:
        """Raise ValueError when a package is missing, the folder does not exist, or `image` is not set."""
        require_packages()
        require_folder(config.path)
        if config.image is None:
            raise ValueError(
                f"Labeler {cls.name!r} needs `image`, the {{modality}} of the scans that are images. Set it as in the source."
            )

    def origin(self) -> dict[str, Any]:
        """Return the folder and a digest of the list of its files."""
        listing = self.scans.listing
        digest, _ = digest_and_version(listing.root, listing.files, self.config, None)
        return {"kind": PRECOMPUTED, "model": self.config.path, "license": self.config.license, "sha256": digest}

    @property
    def files(self) -> str:
        """The {modality} of the files."""
        return str(self.config.modality or self.modality)

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return the stored values.

        Raises:
            ValueError: an image has no such scan, or not on the same grid.
        """
        return [self._one(key, rgb.shape[:2]) for key, rgb in zip(batch["__key__"], batch["rgb"], strict=True)]

    def _one(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Return the label of an image. Messages name no file, patient or value: they stand in shards and reports."""
        name = SliceName.of(key)
        try:
            image, other = self._read(name.patient, name.visit, name.series), self._read(name.patient, name.visit, None)
        except Unreadable as reason:
            raise ValueError(f"No {self.files}: {reason}. Correct the files, or leave it out.") from None
        own, position = image.position_of(name.number), other.position_of(name.number)
        if own is None or position is None:
            raise ValueError(
                f"No {self.files}: it has no slice of this number. Only scans on the grid of the image are allowed."
            )
        if difference := difference_of(other, position, image, own):
            raise ValueError(f"No {self.files}: it has {difference}. Only scans on the grid of the image are allowed.")
        return self.stored(other, position, size)

    def _read_scan(self, patient: str, visit: str, series: str | None) -> Scan:
        """Return the scan of the image with the digest of its series, or the only other one of the visit."""
        modality = self.files if series is None else self.config.image
        group = self.scans.by_name.get((patient, visit), {}).get(modality)
        if group is None:
            raise Unreadable("the visit has no such scan")
        found, _ = self.scans.series_of(group)
        if series is not None:
            found = [one for one in found if self.scans.series_digest(group, one) == series]
        if len(found) != 1:
            raise Unreadable("the visit has several such scans" if found else "the visit has no such scan")
        return self.scans.read(found[0])

    def stored(self, scan: Scan, position: int, size: tuple[int, int]) -> np.ndarray:
        """Return a slice in the format of the shards."""
        raise NotImplementedError


class ScanLabeler(AlignedLabeler):
    """Labels a kind of scan; `register_scan` makes a subclass for each."""

    config_class = ScanLabelerConfig
    config: ScanLabelerConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self._last: tuple[Scan, Windowing] | None = None  # keeps the percentiles of a scan

    def stored(self, scan: Scan, position: int, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (H, W), cropped and resized as ingestion does with images."""
        gray_HW = self._windowing(scan).gray(position)
        if isinstance(gray_HW, str):
            raise ValueError(f"No {self.files}: {gray_HW}. Correct the files, or leave it out.")
        return np.asarray(ImageOps.fit(Image.fromarray(gray_HW), size[::-1], Image.Resampling.LANCZOS))

    def _windowing(self, scan: Scan) -> Windowing:
        if self._last is None or self._last[0] is not scan:
            self._last = (scan, Windowing(scan, self.config.window))
        return self._last[1]


class MaskLabeler(AlignedLabeler):
    """Labels `semseg` from masks."""

    name, title, modality = "medical_semseg", "Masks that come with the scans", "semseg"
    config_class = MaskConfig
    config: MaskConfig

    @classmethod
    def class_table(cls, config: MaskConfig) -> ClassTable:
        """Return the configured classes; all but the first are things."""
        if config.values and len(config.values) != len(config.classes):
            raise ValueError(
                f"values has {len(config.values)} numbers for {len(config.classes)} classes. Give one for each class."
            )
        ignored = (MAX_ID,) if config.ignored else ()
        return ClassTable(names=config.classes, things=tuple(range(1, len(config.classes))), ignored=ignored)

    def stored(self, scan: Scan, position: int, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (H, W), class ids; the value of the nearest pixel."""
        values = scan.slices[position]
        if isinstance(values, str):
            raise ValueError(f"No {self.files}: {values}. Correct the files, or leave it out.")
        known = self.config.values or tuple(range(len(self.config.classes)))
        ids_HW = np.full(values.shape, -1, np.int64)
        for index, value in enumerate(known):
            ids_HW[values == value] = index
        ids_HW[np.isin(values, self.config.ignored)] = MAX_ID
        if (ids_HW < 0).any():
            raise ValueError(f"No {self.files}: it has values without a class. Name them in `values` or `ignored`.")
        return fitted(squared(ids_HW.astype(np.uint8), scan.spacing, nearest=True), size)


def difference_of(other: Scan, position: int, image: Scan, own: int) -> str | None:
    """Return how a scan differs from that of the image in place; None if slices of one number show one place."""
    if other.numbers is None or image.numbers is None:
        return other.grid.differs_from(image.grid)
    return None if other.grid.shapes[position] == image.grid.shapes[own] else "slices of another size"
