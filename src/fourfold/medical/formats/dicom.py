"""DICOM files, read with pydicom: grayscale, one frame or many, of the transfer syntaxes that need no further package.

Only the tags in `TAGS` are ever read: pydicom is given this list, so that others, also private ones, never become values (those
within functional groups are parsed, and not used). Of these, `IDENTIFYING` serve digests and comparisons alone. What is wrong
with a file is one of a fixed set of reasons.
"""

# H rows, W columns, F frames of a file

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.medical.scans import Grid, ReadingLimits, Scan, Unreadable, Window, canonical

ENDINGS = (".dcm", ".dicom", ".ima")
IDENTIFYING = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
DESCRIBING = (
    "Modality", "BurnedInAnnotation", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
TAGS = [*IDENTIFYING, *DESCRIBING]
PIXELS = ["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
NO_DICOM = "file is not DICOM"
MAGIC = b"DICM"  # after 128 bytes of any content
GRAYS = ("MONOCHROME1", "MONOCHROME2")
DEFLATED = "1.2.840.10008.1.2.1.99"  # expands without a limit
MAX_SPACING_ERROR = 0.02  # share of the distance of slices by which one may differ from the mean


@dataclass(frozen=True)
class Identity:
    """Who and what a file is about; it is turned into digests and never stored."""

    patient: str
    name: str
    study: str
    series: str
    modality: str  # e.g. CT: of the standard, or other


@dataclass(frozen=True)
class _Frame:
    values: np.ndarray | str  # float32 (H, W), or why there are none
    window: Window | None
    position: tuple[float, ...] | None  # mm, of the center of the first pixel, towards left, back and head
    orientation: tuple[float, ...] | None  # directions of rows and of columns
    spacing: tuple[float, float]
    order: tuple[float, str, int]  # instance number, file, frame: where positions say nothing
    inverted: bool
    declared: tuple[int, int]


class _File(io.BufferedReader):
    """A file that never reserves memory for more bytes than it has, whatever length an element declares."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(self._end - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))


def is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(132)[128:] == MAGIC


def identity_of(path: Path) -> Identity:
    """Return the identity of a file; raises Unreadable if it has none."""
    data = _parse(path, TAGS, with_pixels=False)
    patient = _text(data.get("PatientID")) or _text(data.get("StudyInstanceUID"))
    if not patient:
        raise Unreadable("DICOM without PatientID and StudyInstanceUID")
    modality = _text(data.get("Modality"))
    known = modality.isascii() and modality.isalnum() and len(modality) <= 8
    texts = [_text(data.get(name)) for name in ("PatientName", "StudyInstanceUID", "SeriesInstanceUID")]
    return Identity(patient, texts[0], texts[1], texts[2], modality.lower() if known else "other")


def read_series(paths: Sequence[Path], plane: str, limits: ReadingLimits, keep_burned_in: bool = False) -> Scan:
    """Return the slices of the files of one series.

    Args:
        paths: files of one frame each, or of many.
        plane: `native`: the frames as stored, by position where all have one; otherwise the series is cut in that plane.
        limits: of the size of files and of the number of voxels.
        keep_burned_in: whether files that say that text is burned into their pixels are used.

    Raises:
        Unreadable: the series cannot be cut in that plane, or is too large.
    """
    frames: list[_Frame] = []
    total = 0
    for path in sorted(paths):
        for frame in _frames_of(path, limits, keep_burned_in):
            total += frame.declared[0] * frame.declared[1]
            limits.check_voxels(max(total, 1))
            frames.append(frame)
    usable = [frame for frame in frames if not isinstance(frame.values, str)]
    broken = [frame for frame in frames if isinstance(frame.values, str)]
    if not usable:
        return Scan([frame.values for frame in broken], Grid(()), windows=[None] * len(broken))
    usable, is_placed = _sorted(usable)
    if plane != "native":
        return _cut([*usable, *broken], plane, is_placed)
    affine = _affine(usable) if is_placed and len({frame.declared for frame in usable}) == 1 else None
    # Without positions nobody knows the number of what is broken: such a series is aligned with no other
    shapes = () if broken and affine is None else tuple(frame.declared for frame in [*usable, *broken])
    slices = [frame.values for frame in [*usable, *broken]]
    windows = [frame.window for frame in [*usable, *broken]]
    return Scan(slices, Grid(shapes, affine), usable[0].spacing, windows, usable[0].inverted)


def _frames_of(path: Path, limits: ReadingLimits, keep_burned_in: bool) -> Iterator[_Frame]:
    """Yield the frames of a file; a file that cannot be used is one frame with the reason."""
    try:
        yield from _decoded(path, limits, keep_burned_in)
        return
    except Unreadable as error:
        reason = str(error)
    except MemoryError:  # a fault of the machine: reads are bounded
        raise
    except Exception as error:  # parsers raise all kinds of errors for hostile bytes, and quote them
        reason = f"DICOM cannot be read ({type(error).__name__})"
    yield _Frame(reason, None, None, None, (1.0, 1.0), (0.0, path.as_posix(), 0), False, (0, 0))


def _decoded(path: Path, limits: ReadingLimits, keep_burned_in: bool) -> Iterator[_Frame]:
    if path.stat().st_size > limits.max_file_bytes:
        raise Unreadable("file is too large (max_file_bytes)")
    header = _parse(path, TAGS, with_pixels=False)
    count = int(header.get("NumberOfFrames") or 1)
    rows, columns = int(header.Rows), int(header.Columns)
    limits.check_voxels(rows, columns, count)
    _check_kind(header, keep_burned_in)
    data = _parse(path, [*TAGS, *PIXELS], with_pixels=True)
    if not any(name in data for name in PIXELS):
        raise Unreadable("DICOM without pixels, e.g. a report or a plan")
    stored_FHW = np.asarray(data.pixel_array).reshape(count, rows, columns)
    number = float(data.get("InstanceNumber") or 0)
    for index in range(count):
        groups = _groups(data, index)
        spacing = _numbers(_value(data, groups, "PixelSpacing") or data.get("ImagerPixelSpacing"), 2) or (1.0, 1.0)
        yield _Frame(
            _rescaled(stored_FHW[index], data, groups),
            _window(data, groups),
            _numbers(_value(data, groups, "ImagePositionPatient"), 3),
            _numbers(_value(data, groups, "ImageOrientationPatient"), 6),
            (spacing[0], spacing[1]),
            (number, path.as_posix(), index),
            data.PhotometricInterpretation == "MONOCHROME1",
            (rows, columns),
        )


def _parse(path: Path, tags: Sequence[str], with_pixels: bool) -> Any:
    """Return the elements of a file that are named; raises Unreadable if it is no DICOM or needs what is not installed."""
    import pydicom
    from pydicom.pixels import get_decoder

    if not is_dicom(path):
        raise Unreadable(NO_DICOM)
    with _File(path) as file:
        data = pydicom.dcmread(file, stop_before_pixels=not with_pixels, specific_tags=list(tags))
        syntax = data.file_meta.get("TransferSyntaxUID")
        if syntax is None:
            raise Unreadable("DICOM without a transfer syntax")
        if syntax == DEFLATED:
            raise Unreadable("DICOM of a deflated transfer syntax, which is not read: decompress it")
        try:
            is_available = get_decoder(syntax).is_available
        except NotImplementedError:
            is_available = False
        if not is_available:
            known = syntax.name if not syntax.is_private and syntax.name != str(syntax) else "unknown"
            raise Unreadable(f"DICOM of a transfer syntax that is not read: {known}; decompress it")
    return data


def _check_kind(data: Any, keep_burned_in: bool) -> None:
    """Raise Unreadable for colors, and for text in the pixels unless it is kept."""
    if int(data.get("SamplesPerPixel") or 1) != 1 or data.get("PhotometricInterpretation") not in GRAYS:
        raise Unreadable("DICOM has colors or a palette; grayscale is read")
    if not keep_burned_in and _text(data.get("BurnedInAnnotation")).upper() == "YES":
        raise Unreadable("DICOM says that text is burned into its pixels (burned_in: drop)")


def _groups(data: Any, index: int) -> list[Any]:
    """Return the functional groups that apply to a frame of an enhanced multi-frame file, its own first."""
    own = data.get("PerFrameFunctionalGroupsSequence") or []
    shared = data.get("SharedFunctionalGroupsSequence") or []
    return [*([own[index]] if index < len(own) else []), *([shared[0]] if len(shared) else [])]


MACROS = {  # the sequence within a functional group that holds a tag
    "PixelSpacing": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}


def _value(data: Any, groups: Sequence[Any], name: str) -> Any:
    """Return the value of a tag for a frame: of its groups, or of the file."""
    for group in groups:
        items = group.get(MACROS[name]) or []
        if len(items) and (found := items[0].get(name)) is not None:
            return found
    return data.get(name)


def _rescaled(stored_HW: np.ndarray, data: Any, groups: Sequence[Any]) -> np.ndarray:
    """Return values in their unit, float32 (H, W): by the modality table of the file, or by slope and intercept."""
    from pydicom.pixels import apply_modality_lut

    if data.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored_HW, data)).astype(np.float32)
    slope, intercept = (_number(_value(data, groups, name)) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    return (stored_HW.astype(np.float64) * slope + intercept).astype(np.float32)


def _window(data: Any, groups: Sequence[Any]) -> Window | None:
    """Return the first window that a file offers for a frame; None if it has none that makes sense."""
    center, width = (_number(_value(data, groups, name)) for name in ("WindowCenter", "WindowWidth"))
    function = _text(_value(data, groups, "VOILUTFunction")).upper() or "LINEAR"
    if center is None or width is None or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    return Window(center, width, function) if width >= (1 if function == "LINEAR" else 1e-9) else None


def _sorted(frames: list[_Frame]) -> tuple[list[_Frame], bool]:
    """Return usable frames in the order of their positions, from foot to head for axial ones, and whether all have one."""
    first = frames[0].orientation
    is_placed = first is not None and all(
        frame.position is not None and frame.orientation is not None and np.allclose(frame.orientation, first, atol=1e-3)
        for frame in frames
    )
    if first is None or not is_placed:
        return sorted(frames, key=lambda frame: frame.order), False
    normal = np.cross(first[:3], first[3:])
    return sorted(frames, key=lambda frame: (float(np.dot(normal, frame.position or (0, 0, 0))), frame.order)), True


def _affine(frames: Sequence[_Frame]) -> np.ndarray | None:
    """Return the matrix from (column, row, slice) to mm towards right, front and head."""
    first, last = frames[0], frames[-1]
    if first.position is None or last.position is None or first.orientation is None:
        return None
    rows, columns = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    step = (np.array(last.position) - first.position) / (len(frames) - 1) if len(frames) > 1 else np.cross(rows, columns)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = rows * first.spacing[1], columns * first.spacing[0], step
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _cut(frames: Sequence[_Frame], plane: str, is_placed: bool) -> Scan:
    """Return the slices of another plane of a series."""
    values = [frame.values for frame in frames]
    if reason := next((one for one in values if isinstance(one, str)), None):
        raise Unreadable(reason)
    affine = _affine(frames) if is_placed and len(frames) > 1 else None
    arrays = [one for one in values if not isinstance(one, str)]
    if affine is None or len({one.shape for one in arrays}) > 1:
        raise Unreadable("DICOM series without one geometry has no other plane (slices.plane: native)")
    positions = np.array([frame.position for frame in frames])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if np.abs(steps - steps.mean()).max() > MAX_SPACING_ERROR * steps.mean():
        raise Unreadable("DICOM series with slices at uneven distances has no other plane (slices.plane: native)")
    volume, _ = canonical(np.stack(arrays).transpose(2, 1, 0), affine)
    scan = volume.cut(plane)
    window = frames[0].window if all(frame.window == frames[0].window for frame in frames) else None
    return Scan(scan.slices, scan.grid, scan.spacing, [window] * len(scan.slices), frames[0].inverted)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return the finite numbers of a tag; None unless there are `count` of them."""
    try:
        found = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _number(value: Any) -> float | None:
    """Return the first number of a tag; None without a finite one."""
    try:
        first = value if isinstance(value, int | float) else next(iter(value))
        return float(first) if np.isfinite(float(first)) else None
    except (TypeError, ValueError, StopIteration):
        return None


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
