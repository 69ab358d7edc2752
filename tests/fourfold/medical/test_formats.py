"""Readers: NIfTI judged by nibabel and by 48 orientations, DICOM by pydicom and by NIfTI, hostile files by their reasons."""

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pydicom
import pytest
from medical_files import PHI, SPACING, dicom, head, write_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless

from fourfold.medical.formats import nifti, pictures
from fourfold.medical.formats.dicom import identity_of, read_series
from fourfold.medical.scans import ReadingLimits, Unreadable

LIMITS = ReadingLimits(max_file_bytes=10_000_000, max_voxels=1_000_000)
VALUES = head(3, side=10, depth=5)[0][:, :8]  # three different sides
AFFINE = np.diag([*SPACING, 1.0])
ORIENTATIONS = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


def save(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def stored_as(values, affine, order, signs):
    """The same voxels with axes in another order and direction."""
    orientation = np.array(list(zip(order, signs, strict=True)))
    return nibabel.Nifti1Image(values, affine).as_reoriented(orientation)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_do_not_depend_on_how_axes_are_stored(tmp_path, plane):
    expected = nifti.read_nifti(save(tmp_path / "a.nii", VALUES), plane, LIMITS)
    for number, (order, signs) in enumerate(ORIENTATIONS):
        nibabel.save(stored_as(VALUES, AFFINE, order, signs), tmp_path / f"{number}.nii")
        found = nifti.read_nifti(tmp_path / f"{number}.nii", plane, LIMITS)
        for ours, theirs in zip(found.slices, expected.slices, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert found.spacing == pytest.approx(expected.spacing) and found.grid.differs_from(expected.grid) is None


def test_slices_show_the_right_on_the_left_and_the_front_or_the_head_up(tmp_path):
    path = save(tmp_path / "a.nii", VALUES)
    x, y, z = 2, 3, 1  # towards right, front, head
    axial, coronal, sagittal = (nifti.read_nifti(path, plane, LIMITS).slices for plane in ("axial", "coronal", "sagittal"))
    right, front, top = (side - 1 for side in VALUES.shape)
    assert axial[z][front - y, right - x] == VALUES[x, y, z]
    assert coronal[y][top - z, right - x] == VALUES[x, y, z]
    assert sagittal[x][top - z, front - y] == VALUES[x, y, z]
    assert [len(one) for one in (axial, coronal, sagittal)] == [5, 8, 10]


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_scaled_values_are_those_of_nibabel(tmp_path, ending):
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / f"a.{ending}")
    theirs = nibabel.load(tmp_path / f"a.{ending}").get_fdata()
    ours = nifti.read_nifti(tmp_path / f"a.{ending}", "axial", LIMITS)
    np.testing.assert_allclose(ours.slices[2], theirs[::-1, ::-1, 2].T, rtol=1e-6)


def test_a_file_of_the_second_version_is_read(tmp_path):
    nibabel.save(nibabel.Nifti2Image(VALUES, AFFINE), tmp_path / "a.nii")
    assert len(nifti.read_nifti(tmp_path / "a.nii", "native", LIMITS).slices) == 5


def test_dicom_and_nifti_of_one_volume_give_equal_slices(tmp_path):
    """DICOM's axes point to the patient's left and back, those of NIfTI to the right and the front."""
    files = list(write_series(tmp_path / "series", VALUES).iterdir())
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    path = save(tmp_path / "a.nii", VALUES, affine)
    for plane in ("native", "axial", "coronal", "sagittal"):
        ours, theirs = read_series(files, plane, LIMITS), nifti.read_nifti(path, plane, LIMITS)
        assert len(ours.slices) == len(theirs.slices) and ours.spacing == pytest.approx(theirs.spacing)
        for one, other in zip(ours.slices, theirs.slices, strict=True):
            np.testing.assert_array_equal(one, other)


def test_rescaled_values_are_those_of_pydicom(tmp_path):
    data = dicom(
        VALUES[..., 0],
        tmp_path / "a.dcm",
        RescaleSlope=2.5,
        RescaleIntercept=-1024,
        WindowCenter=[40, 80],
        WindowWidth=[400, 90],
    )
    scan = read_series([tmp_path / "a.dcm"], "native", LIMITS)
    np.testing.assert_allclose(scan.slices[0], pydicom.pixels.apply_rescale(data.pixel_array, data))
    assert (scan.windows[0].center, scan.windows[0].width, scan.windows[0].function) == (40, 400, "LINEAR")
    assert not scan.inverted
    dicom(VALUES[..., 0], tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")
    assert read_series([tmp_path / "b.dcm"], "native", LIMITS).inverted


def test_frames_of_an_enhanced_file_have_their_own_scale_window_and_place(tmp_path):
    def group(**macros):
        item = Dataset()
        for sequence, tags in macros.items():
            inner = Dataset()
            for name, value in tags.items():
                setattr(inner, name, value)
            setattr(item, sequence, Sequence([inner]))
        return item

    frames = np.ascontiguousarray(VALUES.transpose(2, 1, 0))
    own = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, -z]},  # stored from head to feet
            PixelValueTransformationSequence={"RescaleSlope": z + 1, "RescaleIntercept": 0},
            FrameVOILUTSequence={"WindowCenter": z, "WindowWidth": 10},
        )
        for z in range(5)
    ]
    shared = group(
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, PixelMeasuresSequence={"PixelSpacing": [3, 2]}
    )
    dicom(
        frames,
        tmp_path / "a.dcm",
        PerFrameFunctionalGroupsSequence=Sequence(own),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    scan = read_series([tmp_path / "a.dcm"], "native", LIMITS)
    assert [window.center for window in scan.windows] == [4, 3, 2, 1, 0] and scan.spacing == (3, 2)
    for position, z in enumerate([4, 3, 2, 1, 0]):
        np.testing.assert_array_equal(scan.slices[position], frames[z].astype(np.float32) * (z + 1))


def test_frames_without_places_are_in_the_order_of_their_numbers(tmp_path):
    for number in (3, 1, 2):
        dicom(np.full((4, 4), number, np.uint16), tmp_path / f"{9 - number}.dcm", InstanceNumber=number)
    scan = read_series(list(tmp_path.iterdir()), "native", LIMITS)
    assert [one[0, 0] for one in scan.slices] == [1, 2, 3] and scan.grid.affine is None
    with pytest.raises(Unreadable, match="without one geometry"):
        read_series(list(tmp_path.iterdir()), "axial", LIMITS)


def test_a_broken_file_does_not_move_the_others(tmp_path):
    files = sorted(write_series(tmp_path / "a", VALUES).iterdir())
    whole = read_series(files, "native", LIMITS)
    files[2].write_bytes(files[2].read_bytes()[:-40])
    broken = read_series(files, "native", LIMITS)
    assert isinstance(broken.slices[-1], str) and "cannot be read" in broken.slices[-1]
    assert whole.grid.differs_from(broken.grid) is not None  # nothing is aligned with it


def corrupted(path, edit):
    data = pydicom.dcmread(path)
    edit(data)
    pydicom.dcmwrite(path, data)


def test_hostile_dicom_has_a_reason_without_content(tmp_path):
    path = tmp_path / "a.dcm"

    def reason():
        (found,) = read_series([path], "native", LIMITS).slices
        assert isinstance(found, str) and PHI.partition("^")[0] not in found
        return found

    values = VALUES[..., 0]
    dicom(values, path)
    path.write_bytes(path.read_bytes()[:200])
    assert "DICOM" in reason()
    path.write_bytes(b"no image at all")
    assert reason() == "file is not DICOM"
    dicom(values, path, Rows=60_000, Columns=60_000)
    assert "too many voxels" in reason()
    dicom(values, path, NumberOfFrames=2_000_000_000)
    assert "too many voxels" in reason()
    dicom(values, path, NumberOfFrames=-5)
    assert "no voxels" in reason()
    dicom(values, path, Rows=1000)
    assert "cannot be read (ValueError)" in reason()
    dicom(values, path, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert "colors" in reason()
    dicom(values, path, BurnedInAnnotation="YES")
    assert "burned" in reason()
    assert not isinstance(read_series([path], "native", LIMITS, keep_burned_in=True).slices[0], str)
    data = dicom(values)
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([b"x" * 100])
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    assert "JPEG-LS Lossless" in reason()
    del data.PixelData
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    assert "without pixels" in reason()
    # an element that declares almost 4 GiB
    dicom(values, path)
    content = path.read_bytes()
    tag = content.index(struct.pack("<HH2sH", 0x7FE0, 0x10, b"OW", 0))
    path.write_bytes(content[: tag + 8] + struct.pack("<I", 0xFFFFFFF0) + content[tag + 12 :])
    assert isinstance(read_series([path], "native", LIMITS).slices[0], (str, np.ndarray))


def test_hostile_nifti_has_a_reason(tmp_path):
    path = save(tmp_path / "a.nii", VALUES)
    good = path.read_bytes()

    def reason(content, name="a.nii"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Exception) as caught:
            nifti.read_nifti(tmp_path / name, "native", LIMITS)
        return str(caught.value) if isinstance(caught.value, Unreadable) else type(caught.value).__name__

    def patched(offset, form, *values):
        return good[:offset] + struct.pack(form, *values) + good[offset + struct.calcsize(form) :]

    assert "too many voxels" in reason(patched(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1))
    assert "no voxels" in reason(patched(40, "<8h", 3, 10, 0, 5, 1, 1, 1, 1))
    assert "colors or complex" in reason(patched(70, "<hh", 32, 64))
    assert reason(good[:400]) in ("OSError", "ValueError")
    assert reason(gzip.compress(good)[:300], "b.nii.gz") in ("EOFError", "OSError")
    assert reason(b"")
    assert reason(patched(0, "<i", 77))
    save(path, np.zeros((4, 4, 4, 3), np.int16))
    assert "more than three axes" in reason(path.read_bytes())
    save(path, np.zeros((4, 4, 4, 1), np.int16))
    assert len(nifti.read_nifti(path, "native", LIMITS).slices) == 4
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header.set_sform(affine, code=1)
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[254:256] = struct.pack("<h", 1)  # sform_code
    content[280:328] = bytes(48)
    assert "orientation" in reason(bytes(content))


def test_pictures_are_read_in_natural_order_and_bits(tmp_path):
    for number in (10, 9, 1):
        Image.fromarray(np.full((4, 5), number * 100, np.uint16)).save(tmp_path / f"{number}.png")
    scan = pictures.read_pictures(list(tmp_path.iterdir()), LIMITS)
    assert [one[0, 0] for one in scan.slices] == [100, 900, 1000] and scan.bits is None
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(tmp_path / "8.png")
    assert pictures.read_pictures([tmp_path / "8.png"], LIMITS).bits == 8


def test_pictures_that_cannot_be_used_have_a_reason(tmp_path):
    def reason(image=None, content=b"", limits=LIMITS):
        path = tmp_path / "a.png"
        image.save(path) if image else path.write_bytes(content)
        (found,) = pictures.read_pictures([path], limits).slices
        return found

    assert "unreadable" in reason(content=b"no image")
    colored = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    assert "colors" in reason(colored)
    assert reason(Image.fromarray(np.full((4, 4), 9, np.uint8)).convert("RGB"))[0, 0] == 9
    assert "too many voxels" in reason(Image.new("L", (2000, 2000)))
    assert "too large" in reason(colored, limits=ReadingLimits(100, 1000))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # of pydicom, when the test writes it
def test_identities_are_read_for_digests(tmp_path):
    dicom(VALUES[..., 0], tmp_path / "a.dcm")
    assert identity_of(tmp_path / "a.dcm").patient == "4711-0815"
    dicom(VALUES[..., 0], tmp_path / "a.dcm", PatientID="", Modality="a free text")
    found = identity_of(tmp_path / "a.dcm")
    assert (found.patient, found.modality) == ("1.2.3", "other")
    dicom(VALUES[..., 0], tmp_path / "a.dcm", PatientID="", StudyInstanceUID="")
    with pytest.raises(Unreadable, match="without PatientID"):
        identity_of(tmp_path / "a.dcm")
