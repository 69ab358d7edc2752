"""Patterns of paths, and what DICOM files say where a pattern leaves it open."""

import numpy as np
import pytest
from medical_files import dicom, write_patients

from fourfold.medical.__main__ import main
from fourfold.medical.layout import ScanFiles, ScanFilesConfig, compiled
from fourfold.medical.privacy import SliceName


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{patient}/{modality}.nii.gz", "ann/t1.nii.gz", {"patient": "ann", "modality": "t1"}),
        ("{patient}/{modality}.nii.gz", "ann/more/t1.nii.gz", None),
        ("{patient}/{modality}.nii.gz", "ann/t1_nii.gz", None),
        ("{patient}/{patient}_{modality}.nii.gz", "B_1/B_1_t1ce.nii.gz", {"patient": "B_1", "modality": "t1ce"}),
        ("{patient}/{patient}_{modality}.nii.gz", "B_1/B_2_t1ce.nii.gz", None),
        (
            "{patient}/{visit}/anat/*_{modality}.nii.gz",
            "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz",
            {"patient": "sub-1", "visit": "ses-2", "modality": "T1w"},
        ),
        ("{patient}_{modality}_{slice}.png", "a_b_t1_007.png", {"patient": "a_b", "modality": "t1", "slice": "007"}),
        ("**/{patient}/*.dcm", "x/y/ann/1.dcm", {"patient": "ann"}),
        ("**/{patient}/*.dcm", "ann/1.dcm", {"patient": "ann"}),
        ("**/*", "a/b/c", {}),
    ],
)
def test_patterns_name_the_parts_of_a_path(pattern, path, expected):
    match = compiled(pattern).fullmatch(path)
    assert (match and match.groupdict()) == expected


def test_unknown_places_are_refused():
    with pytest.raises(ValueError, match=r"Unknown place in pattern: '\{pateint\}'. Did you mean '\{patient\}'"):
        ScanFilesConfig(path="x", pattern="{pateint}/*.png")
    with pytest.raises(ValueError, match=r"image is 't1', and pattern '\{patient\}/\*\.png' has no \{modality\}"):
        ScanFilesConfig(path="x", pattern="{patient}/*.png", image="t1")


def test_errors_about_a_pattern_name_no_file(tmp_path):
    write_patients(tmp_path, 1, depth=2)
    with pytest.raises(ValueError, match="has 3 files, none of which fits pattern") as caught:
        ScanFiles(ScanFilesConfig(path=str(tmp_path), pattern="{patient}/{modality}.png"))
    assert "Quagmire" not in str(caught.value)
    with pytest.raises(ValueError, match=r"'flair'; pattern .* finds 2 modalities") as caught:
        ScanFiles(ScanFilesConfig(path=str(tmp_path), image="flair"))
    assert "Quagmire" not in str(caught.value)
    with pytest.raises(ValueError, match="is not a folder"):
        ScanFiles(ScanFilesConfig(path=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="is a URL"):
        ScanFiles(ScanFilesConfig(path="s3://bucket/scans"))


def test_dicom_files_say_who_they_are_about_where_the_pattern_does_not(tmp_path):
    gray = np.full((4, 4), 100, np.uint16)
    for number, tags in enumerate(
        [
            {"PatientID": "A", "SeriesInstanceUID": "1.1", "Modality": "MR"},
            {"PatientID": "A", "SeriesInstanceUID": "1.1", "Modality": "MR"},
            {"PatientID": "A", "SeriesInstanceUID": "1.2", "Modality": "MR"},
            {"PatientID": "B", "SeriesInstanceUID": "1.3", "Modality": "CT"},
        ]
    ):
        dicom(gray, tmp_path / "any" / f"IM{number}", **tags)
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "cut.dcm").write_bytes(b"x")
    scans = ScanFiles(ScanFilesConfig(path=str(tmp_path), pattern="**/*", image="mr"))
    assert [(group.patient, group.modality, len(group.files)) for group in scans.groups] == [("A", "mr", 3), ("B", "ct", 1)]
    (group,) = scans.images()
    series, drops = scans.series_of(group)
    assert [len(one.files) for one in series] == [2, 1] and not drops
    assert sorted((drop.reason, drop.what) for drop in scans.drops) == [
        ("file is not DICOM", "member"),
        ("file is not DICOM", "sample"),
    ]


def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold.labelers.extras.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"Package 'pydicom' is not installed.*pip install 'fourfold\[medical\]'"):
        ScanFiles(ScanFilesConfig(path=str(tmp_path)))


def test_the_files_behind_a_name_of_a_report_are_found(tmp_path, capsys):
    write_patients(tmp_path, 2, depth=2)
    scans = ScanFiles(ScanFilesConfig(path=str(tmp_path), image="t1"))
    group = scans.images()[1]
    (series,), _ = scans.series_of(group)
    key = SliceName(*scans.names_of(group), scans.series_digest(group, series), 1).key
    digest = scans.file_name(tmp_path / "Quagmire_000" / "report.txt")
    assert main(["--path", str(tmp_path), key, digest]) == 0
    assert capsys.readouterr().out == (
        f"{key}\t{tmp_path}/Quagmire_001/t1.nii.gz\n{digest}\t{tmp_path}/Quagmire_000/report.txt\n"
    )
    assert main(["--path", str(tmp_path), f"file-{'0' * 16}", key.replace("-s", "-s0")]) == 1
    assert capsys.readouterr().out.count("no file: are path, pattern and salt file") == 2
    with pytest.raises(SystemExit):
        main(["--path", str(tmp_path / "none"), key])
    assert "is not a folder" in capsys.readouterr().err
