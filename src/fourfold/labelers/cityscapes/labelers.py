"""Cityscapes in its official layout: class ids and instances of `gtFine`, depth from `disparity` and `camera`.

Labels are cropped to the center square, as ingestion does with the images.
"""

# H W pixels of a file, S side of the stored image, N instances

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from scipy.ndimage import distance_transform_edt, find_objects

from fourfold.configuration import Config
from fourfold.data.missing import Missing
from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.cityscapes.classes import CLASS_TABLE, SKY, THINGS, train_ids
from fourfold.labelers.class_names import box_table
from fourfold.labelers.depths import meters_of_metric
from fourfold.labelers.losses import FILTERED
from fourfold.labelers.precomputed.files import keys_of_name, listing_digest, require_all
from fourfold.labelers.precomputed.maps import fitted, read_array
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext
from fourfold.modalities.class_table import MAX_ID, ClassTable
from fourfold.storage import read_json

IMAGE = "_leftImg8bit.png"
LICENSE = "Cityscapes license: research and teaching, not commercial (cityscapes-dataset.com)"
MAX_BOXES = 100
INSTANCES_PER_CLASS = 1000  # ids of instances are 1,000 · label id + number; smaller ids are groups and stuff
MAX_INSTANCE = 34 * INSTANCES_PER_CLASS
DISPARITY_UNITS = 256  # of a 16-bit PNG p: disparity (p - 1) / 256 pixels; 0 is invalid


class CityscapesConfig(Config):
    """Where Cityscapes is."""

    path: str = Field(min_length=1)  # its root, which has gtFine, and disparity and camera for depth
    split: str = "train"  # the source reads leftImg8bit/<split>


class BoxesConfig(CityscapesConfig):
    """Settings of boxes."""

    min_pixels: float = Field(2.0, ge=0)  # of the stored image, the shorter side of a box
    min_visible: float = Field(0.3, ge=0, le=1)  # share of an object that must be within the center square


class DepthConfig(CityscapesConfig):
    """Settings of depth."""

    max_depth: float = Field(150.0, gt=0)  # meters; stereo says little about what is farther
    min_valid: float = Field(0.3, ge=0, le=1)  # share of the pixels that need a disparity


class CityscapesLabeler(Labeler):
    """Reads one file for each image."""

    kind = "cityscapes"
    config: CityscapesConfig
    folder, suffix = "gtFine", "_gtFine_labelIds.png"

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.files = self._files(self.config)

    @classmethod
    def require(cls, config: CityscapesConfig) -> None:
        """Raise ValueError when there is no file of these labels."""
        cls._files(config)

    @classmethod
    def _files(cls, config: CityscapesConfig) -> dict[str, Path]:
        return files_by_key(Path(config.path).expanduser(), cls.folder, config.split, cls.suffix)

    def origin(self) -> dict[str, Any]:
        """Return folder, license and a digest of the list of files."""
        folder = Path(self.config.path).expanduser() / self.folder / self.config.split
        return {"kind": self.kind, "model": str(folder), "license": LICENSE, "sha256": listing_digest(folder, (".png",))}

    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        """Return the stored values; raises ValueError when an image has no file, or a file cannot be read."""
        require_all(batch["__key__"], self.files, f"{self.config.path}/{self.folder}/{self.config.split}")
        columns = zip(batch["__key__"], batch["rgb"], strict=True)
        return [self.stored(self.files[key], rgb_SS3.shape[0]) for key, rgb_SS3 in columns]

    def stored(self, path: Path, side: int) -> Any:
        """Return the label of one image of `side` pixels in the format of the shards."""
        raise NotImplementedError


class CityscapesClasses(CityscapesLabeler):
    """Labels `semseg` with the 19 classes; 255 where there is none of them."""

    name, title, modality = "cityscapes_semseg", "Segmentation of Cityscapes", "semseg"
    config_class = CityscapesConfig

    @classmethod
    def class_table(cls, config: CityscapesConfig) -> ClassTable:
        """Return the 19 classes."""
        return CLASS_TABLE

    def stored(self, path: Path, side: int) -> np.ndarray:
        """Return uint8 (S, S)."""
        return fitted(train_ids()[numbers(path, MAX_ID)], (side, side))


class CityscapesBoxes(CityscapesLabeler):
    """Labels `det` with the boxes of instances, the largest first; groups, which have no instances, are left out."""

    name, title, modality = "cityscapes_det", "Boxes of the instances of Cityscapes", "det"
    suffix = "_gtFine_instanceIds.png"
    config_class = BoxesConfig
    config: BoxesConfig

    @classmethod
    def class_table(cls, config: BoxesConfig) -> ClassTable:
        """Return the eight classes with instances."""
        return box_table(list(THINGS.values()))

    def stored(self, path: Path, side: int) -> dict[str, Any]:
        """Return `{"instances": [...]}` relative to the center square."""
        ids_HW = numbers(path, MAX_INSTANCE)
        height, width = ids_HW.shape
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        center_HW = ids_HW[top : top + short, left : left + short]
        whole, inside = (np.bincount(ids.ravel(), minlength=MAX_INSTANCE + 1) for ids in (ids_HW, center_HW))
        found = []
        for number, place in enumerate(find_objects(center_HW.astype(np.int32)), 1):
            label = number // INSTANCES_PER_CLASS
            if place is None or label not in THINGS or inside[number] < self.config.min_visible * whole[number]:
                continue
            rows, columns = place
            box = [columns.start / short, rows.start / short, columns.stop / short, rows.stop / short]
            if min(box[2] - box[0], box[3] - box[1]) * side >= self.config.min_pixels:
                found.append((int(inside[number]), box, THINGS[label]))
        found.sort(key=lambda one: -one[0])
        return boxes_of([box for _, box, _ in found], [name for *_, name in found], [1.0] * len(found), MAX_BOXES)


class _Intrinsic(BaseModel):
    fx: float = Field(gt=0)


class _Extrinsic(BaseModel):
    baseline: float = Field(gt=0)


class CityscapesCamera(BaseModel):
    """The part of a camera file that depth needs: focal length in pixels and distance of the cameras in meters."""

    intrinsic: _Intrinsic
    extrinsic: _Extrinsic


class CityscapesDepth(CityscapesLabeler):
    """Labels `depth` from the stereo disparities; the sky is at `max_depth`, other gaps take the depth of the nearest pixel."""

    name, title, modality = "cityscapes_depth", "Depth from the disparities of Cityscapes", "depth"
    folder, suffix = "disparity", "_disparity.png"
    config_class = DepthConfig
    config: DepthConfig

    def stored(self, path: Path, side: int) -> Any:
        """Return meters float16 (S, S), or `Missing` with too few disparities."""
        units_SS = fitted(numbers(path, 65535), (side, side)).astype(np.float64)
        is_valid_SS = units_SS > 0
        if is_valid_SS.mean() < max(self.config.min_valid, 1 / units_SS.size):
            return Missing(f"{FILTERED}less than {self.config.min_valid:.0%} of the pixels have a disparity")
        camera = self._camera(path)
        disparity_SS = np.maximum((units_SS - 1) / DISPARITY_UNITS, 1e-9)
        depth_SS = np.minimum(camera.extrinsic.baseline * camera.intrinsic.fx / disparity_SS, self.config.max_depth)
        rows, columns = distance_transform_edt(~is_valid_SS, return_distances=False, return_indices=True)
        depth_SS = np.where(self._sky(path, side) & ~is_valid_SS, self.config.max_depth, depth_SS[rows, columns])
        return meters_of_metric(depth_SS).astype(np.float16)

    def _sky(self, path: Path, side: int) -> np.ndarray:
        """Return bool (S, S), where the sky is: stereo finds nothing there. False without the files of the classes."""
        classes = CityscapesClasses
        name = path.name.replace(self.suffix, classes.suffix)
        file = Path(self.config.path).expanduser() / classes.folder / self.config.split / path.parent.name / name
        return fitted(numbers(file, MAX_ID) == SKY, (side, side)) if file.is_file() else np.zeros((side, side), bool)

    def _camera(self, path: Path) -> CityscapesCamera:
        stem = path.name.removesuffix(self.suffix)
        city = path.parent.name
        file = Path(self.config.path).expanduser() / "camera" / self.config.split / city / f"{stem}_camera.json"
        try:
            return CityscapesCamera.model_validate(read_json(file))
        except (OSError, ValueError, ValidationError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise ValueError(
                f"{file} needs intrinsic.fx and extrinsic.baseline: {reason}. Get camera_trainvaltest.zip."
            ) from error


CITYSCAPES_LABELERS = (CityscapesClasses, CityscapesBoxes, CityscapesDepth)


@lru_cache(maxsize=8)
def files_by_key(root: Path, folder: str, split: str, suffix: str) -> dict[str, Path]:
    """Return the files of one kind of label by the keys of their images; raises ValueError when there are none."""
    paths = sorted((root / folder / split).glob(f"*/*{suffix}"))
    if not paths:
        raise ValueError(
            f"{root.absolute()} has no {folder}/{split}/*/*{suffix}. Correct `path`, or get the files from the Cityscapes page "
            "(cityscapes-dataset.com), whose terms apply."
        )
    names = {path: f"{path.parent.name}/{path.name.removesuffix(suffix)}{IMAGE}" for path in paths}
    return {key: path for path, name in names.items() for key in keys_of_name(name)}


def numbers(path: Path, highest: int) -> np.ndarray:
    """Return a PNG of numbers as int64 (H, W); raises ValueError if it is none or has larger ones."""
    values_HW = read_array(path)
    if values_HW.ndim != 2 or values_HW.dtype.kind not in "iu" or values_HW.min() < 0 or values_HW.max() > highest:
        raise ValueError(f"{path} must have one number from 0 to {highest} for each pixel. Use the official file.")
    return values_HW.astype(np.int64)
