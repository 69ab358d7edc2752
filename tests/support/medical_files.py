"""Small scans of made-up patients."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PHI = "Zebulon^Quagmire"
SPACING = (2.0, 2.0, 4.0)  # mm


def head(seed: int, side: int = 24, depth: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return values int16 (side, side, depth) of a bright ellipsoid with a brighter ball in it, and the mask of the ball."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (side, side, depth)), indexing="ij")
    inside = (x / rng.uniform(0.6, 0.9)) ** 2 + (y / rng.uniform(0.6, 0.9)) ** 2 + (z / 1.2) ** 2 < 1
    cx, cy = rng.uniform(-0.3, 0.3, 2)
    ball = (x - cx) ** 2 + (y - cy) ** 2 + (z / 2) ** 2 < rng.uniform(0.03, 0.1)
    values = inside * rng.integers(300, 500) + ball * 400 + rng.normal(0, 15, inside.shape)
    return values.astype(np.int16), ball.astype(np.uint8)


def write_patients(folder: Path, count: int, depth: int = 6) -> Path:
    """Write `count` patients with `t1.nii.gz`, `t2.nii.gz`, `mask.nii.gz` and `report.txt` each; the last has no mask."""
    affine = np.diag([*SPACING, 1.0])
    for number in range(count):
        values, ball = head(number, depth=depth)
        patient = folder / f"Quagmire_{number:03d}"
        patient.mkdir(parents=True)
        # NIfTI may hold texts, too
        scans = {"t1": values, "t2": (900 - values) * (values > 150), "mask": ball}
        for name, array in scans.items():
            if name == "mask" and number == count - 1:
                continue
            image = nibabel.Nifti1Image(array, affine)
            image.header["descrip"] = PHI.encode()
            nibabel.save(image, patient / f"{name}.nii.gz")
        (patient / "report.txt").write_text(f"a bright lesion of {int(ball.sum())} voxels")
    return folder


def dicom(values_HW: np.ndarray, path: Path | None = None, **tags: object) -> pydicom.Dataset:
    """Return a grayscale DICOM file with the tags that a scanner writes; writes it to `path` if there is one."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientID, data.PatientName, data.Modality = "4711-0815", PHI, "CT"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    data.PhotometricInterpretation, data.SamplesPerPixel = "MONOCHROME2", 1
    data.Rows, data.Columns = values_HW.shape[-2:]
    if values_HW.ndim == 3:
        data.NumberOfFrames = len(values_HW)
    bits = values_HW.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(values_HW.dtype.kind == "i")
    data.PixelData = values_HW.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, data, enforce_file_format=True)
    return data


def write_series(folder: Path, values_XYZ: np.ndarray, **tags: object) -> Path:
    """Write a volume as one DICOM file for each axial slice, in shuffled names and instance numbers that lie."""
    depth = values_XYZ.shape[2]
    for z in range(depth):
        tags |= {
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, SPACING[2] * z],
            "PixelSpacing": [SPACING[1], SPACING[0]],
            "InstanceNumber": depth - z,
        }
        dicom(np.ascontiguousarray(values_XYZ[:, :, z].T), folder / f"{(z * 7) % depth:03d}{z}.dcm", **tags)
    return folder
