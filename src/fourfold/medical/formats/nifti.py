"""NIfTI files, read with nibabel: three axes, numbers, any orientation. Texts of the header and extensions are never used."""

# X Y Z axes of a volume

from pathlib import Path

import numpy as np

from fourfold.medical.scans import ReadingLimits, Scan, Unreadable, canonical

ENDINGS = (".nii", ".nii.gz")
MAX_AXES = 7  # of NIfTI
READ_KINDS = "iuf"  # of NumPy: integers and floating point numbers


def read_nifti(path: Path, plane: str, limits: ReadingLimits) -> Scan:
    """Return the slices of a file.

    Args:
        path: of the file, `.nii` or `.nii.gz`.
        plane: one of `PLANES`; `native`: the one of the third stored axis.
        limits: what is refused before the values are read.

    Raises:
        Unreadable: it is no volume of numbers, or too large.
    """
    import nibabel

    if path.stat().st_size > limits.max_file_bytes:
        raise Unreadable("file is too large (max_file_bytes)")
    image = nibabel.Nifti1Image if _is_first_version(path) else nibabel.Nifti2Image
    opened = image.from_filename(path)
    shape = _shape(opened.shape, limits)
    if opened.get_data_dtype().kind not in READ_KINDS:
        raise Unreadable("NIfTI of colors or complex numbers, which are not read")
    values = np.asanyarray(opened.dataobj, dtype=np.float32).reshape(shape)
    volume, native = canonical(values, np.asarray(opened.affine, np.float64))
    return volume.cut(native if plane == "native" else plane)


def _is_first_version(path: Path) -> bool:
    """Return whether a header has the size that NIfTI-1 has."""
    import gzip

    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        size = file.read(4)
    return 348 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))


def _shape(declared: tuple[int, ...], limits: ReadingLimits) -> tuple[int, int, int]:
    """Return a shape with three axes; raises Unreadable for more, unless they have one entry each."""
    limits.check_voxels(*declared)
    shape = (*declared, 1, 1, 1)[: max(3, len(declared))]
    if any(side != 1 for side in shape[3:]):
        raise Unreadable("NIfTI with more than three axes, e.g. over time: give each volume a file")
    return shape[0], shape[1], shape[2]
