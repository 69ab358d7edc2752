"""A scan: the slices of one series of a patient as numbers, whatever format they come from."""

# H rows, W columns of a slice; X Y Z axes of a volume towards the patient's right, front and head; 4 × 4 affine matrices

from dataclasses import dataclass, field

import numpy as np

PLANES = ("sagittal", "coronal", "axial")  # by the axis of a volume that they cut
SAME_POSITION = 0.01  # share of the largest voxel side by which positions of two grids may differ


class Unreadable(Exception):  # noqa: N818 - a result about a file, not an error of the program
    """Raised for a file that cannot be used; the message is the reason under which it is counted, without content of it."""


@dataclass(frozen=True)
class ReadingLimits:
    """What is refused before anything is decoded."""

    max_file_bytes: int
    max_voxels: int  # of one series

    def check_voxels(self, *shape: int) -> None:
        """Raise Unreadable if a declared shape is empty or has too many voxels."""
        count = 1
        for side in shape:
            count *= int(side)  # Python's integers: no overflow
        if count > self.max_voxels:
            raise Unreadable("scan declares too many voxels (max_voxels)")
        if count < 1 or min(shape) < 1:
            raise Unreadable("scan declares no voxels")


@dataclass(frozen=True)
class Window:
    """Which values are shown between black and white, as in DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Attributes:
        center, width: in the unit of the values, e.g. Hounsfield units.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class Grid:
    """Where the slices of a scan are: their shapes, and the affine matrix from (column, row, slice) to mm, if it is known."""

    shapes: tuple[tuple[int, int], ...]
    affine: np.ndarray | None = None

    def differs_from(self, other: "Grid") -> str | None:
        """Return in which way two grids differ; None if voxels of one number are at one place."""
        if len(self.shapes) != len(other.shapes):
            return f"{len(self.shapes)} slices instead of {len(other.shapes)}"
        if not self.shapes or any(own != its for own, its in zip(self.shapes, other.shapes, strict=True) if all((*own, *its))):
            return "slices of another size"
        if self.affine is None or other.affine is None:
            return None
        side = np.linalg.norm(other.affine[:3, :3], axis=0).max()
        corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).T
        height, width = other.shapes[0]
        far = corners * np.array([[width], [height], [len(other.shapes)], [1]])
        distance = np.abs((self.affine - other.affine) @ far).max()
        return "voxels at other places" if distance > SAME_POSITION * side else None


@dataclass(frozen=True)
class Scan:
    """The slices of one series.

    Attributes:
        slices: values float32 (H, W) of each slice, after the rescaling that the file asks for, or the reason why there are
            none.
        grid: where they are.
        spacing: millimeters between rows, and between columns.
        windows: what each slice says about its window; None if it says nothing.
        inverted: high values are dark, as in MONOCHROME1.
        bits: of whole gray values that fill their range, e.g. 8 of a PNG of 8 bits; None if the range is unknown.
        numbers: of the slices, where file names have them; None: from 0.
    """

    slices: list[np.ndarray | str]
    grid: Grid
    spacing: tuple[float, float] = (1.0, 1.0)
    windows: list[Window | None] = field(default_factory=list)
    inverted: bool = False
    bits: int | None = None
    numbers: tuple[int, ...] | None = None

    def number_of(self, position: int) -> int:
        """Return the number of the slice at a position."""
        return position if self.numbers is None else self.numbers[position]

    def position_of(self, number: int) -> int | None:
        """Return the position of a slice by its number; None if there is none."""
        if self.numbers is None:
            return number if number < len(self.slices) else None
        return self.numbers.index(number) if number in self.numbers else None


@dataclass(frozen=True)
class Volume:
    """A scan whose slices lie above each other, so that it can be cut in other planes: float32 (X, Y, Z)."""

    values: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]

    def cut(self, plane: str) -> Scan:
        """Return the slices of a plane, from left to right, back to front, or feet to head.

        They are shown as radiologists look at them, from the feet or from the front: the patient's right is on the left. The
        front is up in axial slices and left in sagittal ones.
        """
        axis = PLANES.index(plane)
        mirrored = self.values[::-1, ::-1, ::-1]
        along = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[axis]  # axes of columns and rows
        numbers = range(self.values.shape[axis] - 1, -1, -1)
        slices: list[np.ndarray | str] = [np.ascontiguousarray(np.take(mirrored, number, axis).T) for number in numbers]
        shape = (self.values.shape[along[1]], self.values.shape[along[0]])
        permutation = np.zeros((4, 4))
        for column, source in enumerate((*along, axis)):
            permutation[source, column] = 1
        permutation[3, 3] = 1
        grid = Grid((shape,) * len(slices), self.affine @ permutation)
        return Scan(slices, grid, (self.spacing[along[1]], self.spacing[along[0]]), [None] * len(slices))


def canonical(values: np.ndarray, affine: np.ndarray) -> tuple[Volume, str]:
    """Return a volume whose axes point to the patient's right, front and head, and the plane of its third stored axis.

    Args:
        values: float32, three axes in any order and direction.
        affine: from their indices to mm towards right, front and head (as in NIfTI).

    Raises:
        Unreadable: the matrix gives no directions.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise Unreadable("scan has no usable orientation")
    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise Unreadable("scan has no usable orientation")
    turned = affine @ inv_ornt_aff(orientation, values.shape)
    sides = np.linalg.norm(turned[:3, :3], axis=0)
    volume = Volume(apply_orientation(values, orientation), turned, (float(sides[0]), float(sides[1]), float(sides[2])))
    return volume, PLANES[int(orientation[2, 0])]
