"""A text that identifies a patient is planted in every tag and header that holds text, and searched in all that is written."""

import io
import logging
import subprocess
import tarfile

import nibabel
import numpy as np
import pytest
from medical_files import SPACING, dicom, head, write_patients
from PIL import Image, PngImagePlugin
from pydicom.datadict import DicomDictionary, keyword_for_tag

from fourfold.data.ingestion.card import data_card
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources import SourceContext
from fourfold.medical.formats.dicom import TAGS
from fourfold.medical.source import MedicalConfig, MedicalSource

SECRET = "QUAGMIRE"
TEXTS = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT")  # value representations that hold free text
STRICT = {"AS": "042Y", "DA": "19770304", "DT": "19770304050607", "TM": "050607"}  # a date of birth identifies, too


def planted(gray_HW, path, **tags):
    """Write a DICOM file with the secret in every tag of the standard that can hold it, and in private ones."""
    data = dicom(gray_HW, **tags)
    known = {keyword_for_tag(tag): entry[0] for tag, entry in DicomDictionary.items() if tag >> 16 not in (0, 2)}
    count = 0
    for name, representation in known.items():
        if name in TAGS or not name or name in data:
            continue
        if representation in TEXTS or representation in STRICT:
            setattr(data, name, SECRET if representation in TEXTS else STRICT[representation])
            count += 1
    block = data.private_block(0x0009, f"{SECRET} COMPANY", create=True)
    block.add_new(1, "LO", f"{SECRET} private")
    block.add_new(2, "OB", SECRET.encode())
    data.save_as(path, enforce_file_format=True)
    return count


def write_set(folder):
    """Write scans of all formats, some of which cannot be read, with the secret wherever a text can be."""
    count = 0
    for number in range(9):
        patient = folder / f"{SECRET}-{number}"
        patient.mkdir(parents=True)
        values = head(number, depth=2)[0]
        for z in range(2):
            gray = np.ascontiguousarray(values[..., z].astype(np.uint16))
            write = planted if number == 0 else dicom  # hundreds of tags take their time
            found = write(
                gray, patient / f"{SECRET}{z}.dcm", PatientID=f"{SECRET}{number}", PatientName=f"{SECRET}^J", InstanceNumber=z
            )
            count = found if number == 0 else count
        if number == 0:
            (patient / f"{SECRET}x.dcm").write_bytes((patient / f"{SECRET}0.dcm").read_bytes()[:-90])
        (patient / f"{SECRET}link.dcm").symlink_to("/etc/passwd")
        image = nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0]))
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            image.header[field] = SECRET.encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", SECRET.encode()))
        nibabel.save(image, patient / f"{SECRET}.nii.gz")
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", SECRET)
        info.add_text(SECRET, "x", zip=True)
        picture = Image.fromarray((values[..., 0] // 8).astype(np.uint8))
        picture.save(patient / f"{SECRET}.png", pnginfo=info)
        (patient / "report.txt").write_text(f"{SECRET} is well" if number % 2 else "a well patient")
    return count


def contents(folder):
    """Yield every file below a folder with its path, and every member of its tars, with decoded texts of images."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path.relative_to(folder)), content
        if path.suffix == ".tar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    stored = archive.extractfile(member).read()
                    yield member.name, stored
                    if member.name.endswith(".png"):
                        with Image.open(io.BytesIO(stored)) as image:
                            yield member.name, str(image.info).encode()


@pytest.mark.parametrize("pattern", ["{patient}/**/*", "**/*"])
def test_nothing_that_identifies_a_patient_leaves_the_source(tmp_path, caplog, capfd, pattern):
    assert write_set(tmp_path / "in") > 800, "tags with the secret"
    caplog.set_level(logging.DEBUG)
    values = {
        "source": {"kind": "medical", "path": str(tmp_path / "in"), "pattern": pattern},
        "cleaning": {"captions": "optional", "min_side": 4},
        "val_share": 0.3,
        "test_share": 0.3,
        "max_drop_share": 0.9,
        "leakage": {"remove": False},
    }
    if "patient" in pattern:
        values["source"]["reports"] = "{patient}/report.txt"
    config = IngestionConfig.model_validate(values)
    shards = ingest(config, 0, tmp_path / "out")
    report = ingestion_report(tmp_path / "out")
    card = data_card(config, report)
    found = capfd.readouterr()
    for text in (card, str(report), caplog.text, found.out, found.err):
        assert "quagmire" not in text.lower()
    names = 0
    for name, content in contents(tmp_path / "out"):
        names += 1
        for secret in (SECRET.lower().encode(), b"19770304", SECRET.encode().hex().encode()):
            assert secret not in content.lower() and secret.decode() not in name.lower(), name
    assert names > 20 and sum(shards.num_samples(split) for split in shards.splits()) >= 18
    assert sum(report["by_source"]["medical"]["samples_dropped"].values()) >= 9  # the links and the broken file


def test_the_secret_would_be_found(tmp_path):
    """The search itself can fail: in a folder that holds the set, it finds the secret in names and in contents."""
    write_set(tmp_path / "in")
    assert any(SECRET in name for name, _ in contents(tmp_path))
    assert any(SECRET.encode() in content for _, content in contents(tmp_path))


def test_scans_that_git_would_version_are_refused(tmp_path):
    """A run records uncommitted files."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    write_patients(tmp_path / "datasets/scans", 1, depth=2)
    config = MedicalConfig(path=str(tmp_path / "datasets/scans"), image="t1")
    context = SourceContext(0, tmp_path / "x")
    for call in (lambda: MedicalSource().open(config, context), lambda: MedicalSource().count(config, str)):
        with pytest.raises(ValueError, match=r"git repository that does not ignore it.*\.gitignore"):
            call()
    (tmp_path / ".gitignore").write_text("/datasets/\n")
    assert MedicalSource().open(config, context)
