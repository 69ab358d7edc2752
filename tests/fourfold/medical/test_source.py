"""The source: keys, splits of patients, slices, reports, and losses with a reason."""

from collections import Counter
from itertools import chain

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medical_files import SPACING, dicom, head, write_patients
from PIL import Image

from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources import Drop, RawSample, SampleStream, SourceContext
from fourfold.medical.privacy import Digests, SliceName, patient_of
from fourfold.medical.source import NAMES_PATIENT, MedicalConfig, MedicalSource

CLEANING = {"captions": "optional", "min_side": 4}


def read(context_folder, **settings):
    """Return the samples and the losses of a source."""
    streams = MedicalSource().open(MedicalConfig(**settings), SourceContext(0, context_folder))
    items = list(chain.from_iterable(part.read() for stream in streams for part in stream.slices))
    return [one for one in items if isinstance(one, RawSample)], [one for one in items if isinstance(one, Drop)]


def settings_of(source, **others):
    return IngestionConfig.model_validate(
        {
            "source": {"kind": "medical", **source},
            "cleaning": CLEANING,
            "image_size": 16,
            "val_share": 0.3,
            "test_share": 0.3,
            "samples_per_shard": 16,
            **others,
        }
    )


def test_all_slices_of_a_patient_fall_into_one_split(tmp_path):
    write_patients(tmp_path / "in", 14, depth=3)
    for patient in list((tmp_path / "in").iterdir())[:7]:  # with a second visit, which is the same patient
        for folder, files in (("first", list(patient.iterdir())), ("second", [])):
            (patient / folder).mkdir()
            for file in files:
                file.rename(patient / folder / file.name)
        values = head(99 + int(patient.name[-3:]), depth=3)[0]
        nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), patient / "second" / "t1.nii.gz")
    source = {"path": str(tmp_path / "in"), "pattern": "{patient}/**/{modality}.nii.gz", "image": "t1"}
    by_visit = source | {"pattern": "{patient}/{visit}/{modality}.nii.gz"}
    for number, one in enumerate((source, by_visit)):
        shards = ingest(settings_of(one), 0, tmp_path / f"out{number}")
        splits = {split: [SliceName.of(key) for key in shards.keys(split)] for split in shards.splits()}
        patients = {split: {name.patient for name in names} for split, names in splits.items()}
        assert sum(map(len, patients.values())) == len(set().union(*patients.values())), "a patient is in two splits"
        assert all(patients.values()) and sum(map(len, splits.values())) > 3 * len(patients["train"])
    assert len({name.visit for names in splits.values() for name in names}) > len(set().union(*patients.values()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=4), st.integers(0, 9999)), min_size=1, max_size=30))
def test_the_part_of_a_key_that_decides_the_split_is_the_patient(slices):
    digests = Digests(None)
    stream = SampleStream("m", "x", (), "d", group=patient_of)
    parts: dict[str, set[str]] = {}
    for patient, visit, number in slices:
        name = SliceName(
            digests.of("patient", patient), digests.of("visit", patient, visit), digests.of("series", patient), number
        )
        assert SliceName.of(name.key) == name
        renamed = f"scans-from-3-{name.key}-0123456789abcdef"  # as ingestion completes a key that another sample has
        assert stream.split_by(renamed) == stream.split_by(name.key)
        parts.setdefault(patient, set()).add(stream.split_by(name.key))
    assert all(len(found) == 1 for found in parts.values())
    assert len(set.union(*parts.values())) == len(parts)


def test_a_secret_changes_all_digests_and_is_needed_for_them(tmp_path):
    write_patients(tmp_path / "in", 2, depth=2)
    (tmp_path / "salt").write_bytes(b"0123456789abcdefghij\n")
    source = {"path": str(tmp_path / "in"), "image": "t1"}
    plain, _ = read(tmp_path / "x", **source)
    salted, _ = read(tmp_path / "x", **source, salt_file=str(tmp_path / "salt"))
    again, _ = read(tmp_path / "x", **source, salt_file=str(tmp_path / "salt"))
    assert [one.key for one in salted] == [one.key for one in again] and len(plain) == len(salted) == 4
    hexes = [{part[1:] for one in found for part in one.key.split("-")[:3]} for found in (plain, salted)]
    assert not hexes[0] & hexes[1]
    digests = [
        MedicalSource().open(MedicalConfig(**source, **more), SourceContext(0, tmp_path))[0].digest
        for more in ({}, {"salt_file": str(tmp_path / "salt")})
    ]
    assert digests[0] != digests[1]
    for content, message in ((b"short", "has 5 bytes; allowed: 16 to 64"), (None, "cannot be read")):
        (tmp_path / "bad").write_bytes(content) if content else (tmp_path / "bad").unlink()
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "x", **source, salt_file=str(tmp_path / "bad"))


def test_slices_are_chosen_by_rule_and_the_others_are_counted(tmp_path):
    values = head(0, depth=9)[0]
    values[:, :, [0, 2, 8]] = 0
    (tmp_path / "ann").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), tmp_path / "ann/t1.nii.gz")
    samples, drops = read(tmp_path / "x", path=str(tmp_path), slices={"every": 2, "min_content": 0.05})
    assert [SliceName.of(one.key).number for one in samples] == [4, 6]
    assert Counter((drop.reason.partition(" (")[0], drop.what) for drop in drops) == {
        ("slice is nearly black", "removal"): 3,
        ("not among the slices that slices.every chooses", "removal"): 4,
    }


def test_reports_become_captions_unless_they_name_the_patient(tmp_path):
    gray = np.arange(16, dtype=np.uint16).reshape(4, 4) * 100
    for patient, text in {
        "p-007": b"no finding",
        "p-008": b"Patient P-008: no finding",
        "p-009": b"quagmire has a cyst",  # PatientName of the file
        "p-010": b"ID 4711-0815",  # PatientID of the file
        "p-011": b"zebuloniform",  # only a part of a word
        "p-012": None,
    }.items():
        dicom(gray, tmp_path / patient / "a.dcm")
        if text is not None:
            (tmp_path / patient / "report.txt").write_bytes(text)
    settings = {"path": str(tmp_path), "pattern": "{patient}/*.dcm", "reports": "{patient}/report.txt"}
    samples, _ = read(tmp_path / "x", **settings)
    assert sorted((one.caption, one.no_caption) for one in samples if one.caption) == [
        (b"no finding", "no report"),
        (b"zebuloniform", "no report"),
    ]
    assert Counter(one.no_caption for one in samples if not one.caption) == {NAMES_PATIENT: 3, "no report": 1}
    outside, _ = read(tmp_path / "x", **settings | {"reports": "../{patient}.txt"})
    assert {one.no_caption for one in outside} == {"report lies outside of the source"}


def test_what_cannot_be_used_is_counted_and_the_rest_is_kept(tmp_path):
    write_patients(tmp_path / "in", 12, depth=3)
    affine = np.diag([*SPACING, 1.0])
    files = sorted((tmp_path / "in").glob("*/t1.nii.gz"))
    files[0].write_bytes(files[0].read_bytes()[:300])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), affine), files[1])
    values = head(2, depth=3)[0].astype(np.float32)
    values[3, 3, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, affine), files[2])
    config = settings_of({"path": str(tmp_path / "in"), "image": "t1"}, max_drop_share=0.4)
    ingest(config, 0, tmp_path / "out")
    report = ingestion_report(tmp_path / "out")
    dropped = report["by_source"]["medical"]["samples_dropped"]
    assert {reason.partition(" (")[0] for reason in dropped} == {
        "scan cannot be read",
        "NIfTI with more than three axes, e.g. over time: give each volume a file",
        "slice has values that are not finite",
    }
    assert set(dropped.values()) == {1} and sum(report["kept"].values()) == 9 * 3 + 2
    with pytest.raises(ValueError, match="cannot be used"):
        ingest(settings_of({"path": str(tmp_path / "in"), "image": "t1"}, max_drop_share=0.0), 0, tmp_path / "other")


def test_an_image_file_of_each_slice_keeps_its_number(tmp_path):
    for number in (5, 12):
        Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(tmp_path / f"ann_xray_{number}.png")
    samples, _ = read(tmp_path / "x", path=str(tmp_path), pattern="{patient}_{modality}_{slice}.png")
    assert [SliceName.of(one.key).number for one in samples] == [5, 12]


def test_a_class_in_the_path_is_an_annotation(tmp_path):
    for number, name in enumerate(["ill/ann_1.png", "ill/ann_2.png", "well/bob_1.png", "well/ann_3.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8 + number), 40 * number + 40, np.uint8)).save(tmp_path / name)
    samples, _ = read(tmp_path / "x", path=str(tmp_path), pattern="{class}/{patient}_*.png")
    assert Counter(one.metadata["class"] for one in samples) == {"ill": 2, "well": 2}
    assert len({one.key for one in samples}) == 4 and len({patient_of(one.key) for one in samples}) == 2


def test_near_duplicates_are_looked_for_between_patients_not_within_one(tmp_path):
    """Neighboring slices of a patient are nearly equal, and in one split: no leak. A copy under another name is one."""
    affine = np.diag([*SPACING, 1.0])
    rng = np.random.default_rng(0)
    for number in range(14):
        smooth = np.kron(rng.integers(0, 900, (4, 4)), np.ones((8, 8)))
        values = np.repeat(smooth[..., None], 4, axis=2) + rng.normal(0, 4, (32, 32, 4))
        (tmp_path / "in" / f"patient {number}").mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), tmp_path / "in" / f"patient {number}" / "t1.nii.gz")
    source = {"path": str(tmp_path / "in"), "image": "t1"}
    leakage = {"leakage": {"remove": False, "max_distance": 4}, "image_size": 32}
    shards = ingest(settings_of(source, **leakage), 0, tmp_path / "out")
    assert ingestion_report(tmp_path / "out")["leakage"]["found"] == 0
    # the scan of a test patient, brighter, under a name that falls into `train`
    digests = Digests(None)
    by_digest = {digests.of("patient", f"patient {n}"): n for n in range(14)}
    of = {split: [by_digest[SliceName.of(key).patient] for key in shards.keys(split)] for split in shards.splits()}
    train, test = of["train"][0], of["test"][0]
    copied = nibabel.load(tmp_path / "in" / f"patient {test}" / "t1.nii.gz").get_fdata() * 1.1
    nibabel.save(nibabel.Nifti1Image(copied.astype(np.int16), affine), tmp_path / "in" / f"patient {train}" / "t1.nii.gz")
    ingest(settings_of(source, **leakage), 0, tmp_path / "again")
    assert ingestion_report(tmp_path / "again")["leakage"]["found"] == 4
