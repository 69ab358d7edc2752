"""Other scans and masks of a visit, at the slices of the image."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medical_files import SPACING, head, write_patients, write_series
from PIL import Image

from fourfold.data.codecs import decode, encode
from fourfold.data.ingestion.images import CleaningConfig, clean_image
from fourfold.data.ingestion.sources import RawSample, SourceContext
from fourfold.evaluation.tasks import PREDICTION_TASKS
from fourfold.images import Drawing, draw
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.registry import LABELERS
from fourfold.medical.labelers import MaskConfig, ScanLabelerConfig
from fourfold.medical.modalities import GrayFormat
from fourfold.medical.source import MedicalConfig, MedicalSource
from fourfold.medical.tasks import gray_statistics
from fourfold.metrics.statistics import value
from fourfold.tokenizers.config import TokenizersConfig

SIDE = 20
CLASSES = ("background", "lesion")


def batch_of(folder, **settings):
    streams = MedicalSource().open(MedicalConfig(path=str(folder), **settings), SourceContext(0, folder))
    samples = [one for stream in streams for part in stream.slices for one in part.read() if isinstance(one, RawSample)]
    rgb = np.stack([clean_image(one.image, CleaningConfig(min_side=4, max_aspect_ratio=100), SIDE) for one in samples])
    return {"__key__": [one.key for one in samples], "rgb": rgb}


def labeler(name, folder, **settings):
    entry = LABELERS.get(f"medical_{name}")
    return entry(entry.config_class(path=str(folder), **settings))


@pytest.mark.parametrize("plane", ["native", "coronal", "sagittal"])
def test_a_scan_as_a_label_is_the_same_slice_cropped_and_resized_as_the_image(tmp_path, plane):
    write_patients(tmp_path, 3)
    batch = batch_of(tmp_path, image="t1", plane=plane)
    same = labeler("t2", tmp_path, image="t1", modality="t1", plane=plane).label(batch)
    np.testing.assert_array_equal(np.stack(same), batch["rgb"][..., 0])
    other = labeler("t2", tmp_path, image="t1", plane=plane).label(batch)
    assert other[0].dtype == np.uint8 and not np.array_equal(other[2], same[2])


def test_masks_lie_where_the_image_shows_what_they_mark(tmp_path):
    write_patients(tmp_path, 2)
    (tmp_path / "Quagmire_001" / "mask.nii.gz").write_bytes((tmp_path / "Quagmire_000" / "mask.nii.gz").read_bytes())
    batch = batch_of(tmp_path, image="t1")
    masks = labeler("semseg", tmp_path, image="t1", classes=CLASSES).label(batch)
    assert {int(number) for mask in masks for number in np.unique(mask)} == {0, 1}
    gray, marked = batch["rgb"][:6, ..., 0], np.stack(masks[:6]) == 1  # the patient whose mask it is
    assert gray[marked].mean() > gray[~marked].max() * 0.8 > 2 * gray[~marked].mean()


def test_values_of_masks_are_named_and_others_are_an_error(tmp_path):
    write_patients(tmp_path, 2)
    mask = np.zeros((24, 24, 6), np.int16)
    mask[:8], mask[8:16] = 4, 9
    for patient in tmp_path.iterdir():
        nibabel.save(nibabel.Nifti1Image(mask, np.diag([*SPACING, 1.0])), patient / "mask.nii.gz")
    batch = batch_of(tmp_path, image="t1")
    (found, *_) = labeler("semseg", tmp_path, image="t1", classes=CLASSES, values=(0, 4), ignored=(9,)).label(batch)
    assert {int(number) for number in np.unique(found)} == {0, 1, 255}
    with pytest.raises(ValueError, match="values without a class"):
        labeler("semseg", tmp_path, image="t1", classes=CLASSES, values=(0, 4)).label(batch)
    with pytest.raises(ValueError, match="values has 3 numbers for 2 classes"):
        LABELERS.get("medical_semseg").class_table(MaskConfig(path="x", classes=CLASSES, values=(0, 1, 4)))


def test_scans_on_another_grid_are_refused_in_words_without_a_name(tmp_path):
    write_patients(tmp_path, 4)
    values = head(0)[0]
    affine = np.diag([*SPACING, 1.0])
    moved = affine.copy()
    moved[0, 3] = 5.0
    changes = [
        (values[:, :, :5], affine, "5 slices instead of 6"),
        (values[:, :20], affine, "another size"),
        (values, moved, "other places"),
    ]
    for number, (array, matrix, _) in enumerate(changes):
        nibabel.save(nibabel.Nifti1Image(array, matrix), tmp_path / f"Quagmire_{number:03d}" / "t2.nii.gz")
    (tmp_path / "Quagmire_003" / "t2.nii.gz").unlink()
    batch = batch_of(tmp_path, image="t1")
    t2 = labeler("t2", tmp_path, image="t1")
    by_patient: dict[str, list[int]] = {}
    for row, key in enumerate(batch["__key__"]):
        by_patient.setdefault(key[:17], []).append(row)
    messages = []
    for rows in by_patient.values():
        one = {"__key__": [batch["__key__"][rows[0]]], "rgb": batch["rgb"][rows[:1]]}
        with pytest.raises(ValueError) as caught:
            t2.label(one)
        messages.append(str(caught.value))
    for reason in (*(reason for _, _, reason in changes), "the visit has no such scan"):
        assert sum(reason in message for message in messages) == 1
    assert not any("uagmire" in message for message in messages)


def test_dicom_series_are_aligned_by_position(tmp_path):
    values, ball = head(5)
    write_series(tmp_path / "ann/mr", values, SeriesInstanceUID="1.1")
    write_series(tmp_path / "ann/seg", ball.astype(np.uint16), SeriesInstanceUID="1.2")
    settings = {"pattern": "{patient}/{modality}/*.dcm", "image": "mr"}
    batch = batch_of(tmp_path, **settings)
    masks = labeler("semseg", tmp_path, modality="seg", classes=CLASSES, **settings).label(batch)
    assert len(masks) == 6 and np.stack(masks).any()
    gray, marked = batch["rgb"][..., 0], np.stack(masks) == 1
    assert gray[marked].mean() > 2 * gray[~marked].mean()


def test_pictures_are_aligned_by_their_numbers(tmp_path):
    for number in (1, 2, 10):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"ann_t1_{number}.png")
        if number != 2:
            Image.fromarray(np.full((8, 8), 100 + number, np.uint8)).save(tmp_path / f"ann_t2_{number}.png")
    settings = {"pattern": "{patient}_{modality}_{slice}.png", "image": "t1"}
    batch = batch_of(tmp_path, **settings)
    t2 = labeler("t2", tmp_path, **settings)
    one = {name: [values[row] for row in (0, 2)] for name, values in batch.items()}
    assert [int(label[0, 0]) for label in t2.label(one)] == [101, 110]
    with pytest.raises(ValueError, match="no slice of this number"):
        t2.label(batch)


def test_labelers_are_named_by_kind_and_need_the_image(tmp_path):
    section = {"kind": "medical", "path": str(tmp_path), "image": "t1"}
    config = LabelingConfig.model_validate({"labelers": {"t2": section, "semseg": {**section, "classes": CLASSES}}})
    assert config.labelers == {"t2": "medical_t2", "semseg": "medical_semseg"}
    assert config.class_tables()["semseg"].things == (1,)
    with pytest.raises(ValueError, match="'medical_t2' needs `image`"):
        LABELERS.get("medical_t2").require(ScanLabelerConfig(path=str(tmp_path)))
    with pytest.raises(ValueError, match="'some-image' is not the key of a slice"):
        write_patients(tmp_path, 1, depth=2)
        labeler("t2", tmp_path, image="t1").label({"__key__": ["some-image"], "rgb": np.zeros((1, 4, 4, 3))})


def test_gray_levels_survive_the_way_to_a_tokenizer_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    gray = GrayFormat({})
    np.testing.assert_array_equal(gray.values(gray.inputs(levels)), levels)


def test_gray_images_are_compared_in_levels():
    truth = np.full((2, 4, 4), 100, np.uint8)
    predicted = truth + np.array([0, 10], np.uint8)[:, None, None]
    found = gray_statistics(predicted, truth)
    assert value(found["mae"]) == 5 and value(found["psnr"]) == pytest.approx((100 + 10 * np.log10(255**2 / 100)) / 2)


def test_another_kind_of_scan_is_the_plug_in_of_the_guide():
    guide = (Path(__file__).parents[3] / "docs/guides/use-medical-scans.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    plugin: dict = {}
    exec(code, plugin)
    plugin["register"]()
    plugin["register"]()  # again, as a second Kedro session does
    assert LABELERS.get("medical_perfusion").modality == "perfusion"
    assert TokenizersConfig(visual={"perfusion": {}}).visual and PREDICTION_TASKS.get("rgb->perfusion").labels == ("perfusion",)
    value = np.full((4, 4), 7, np.uint8)
    np.testing.assert_array_equal(decode("perfusion", encode("perfusion", value)), value)
    assert draw("perfusion", value, Drawing()).tolist() == np.full((4, 4, 3), 7).tolist()
