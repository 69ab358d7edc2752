"""Windows are judged by pydicom, percentiles by NumPy."""

import numpy as np
import pytest
from medical_files import dicom
from pydicom.pixels import apply_windowing

from fourfold.medical.scans import Grid, Scan, Window
from fourfold.medical.windows import WindowConfig, Windowing, squared, windowed

VALUES = np.random.default_rng(0).integers(-1100, 1500, (40, 30)).astype(np.int16)


def scan_of(values, **facts):
    return Scan([values.astype(np.float32)], Grid((values.shape,)), windows=[None], **facts)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # within pydicom
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (0.5, 1.5)])
def test_windows_are_those_of_pydicom(function, center, width):
    data = dicom(VALUES, WindowCenter=center, WindowWidth=width, VOILUTFunction=function, RescaleSlope=1, RescaleIntercept=0)
    low, high = -(2**15), 2**15 - 1
    theirs = (apply_windowing(VALUES, data) - low) / (high - low) * 255
    ours = windowed(VALUES, Window(center, width, function))
    assert np.abs(ours - theirs).max() <= 0.5 + 1e-6 and len(np.unique(ours)) > 1


def test_a_window_of_width_one_is_a_threshold():
    assert windowed(np.array([[0.0, 0.4, 0.5, 0.6, 1.0]]), Window(1, 1)).tolist() == [[0, 0, 0, 255, 255]]


def test_percentiles_ignore_what_is_not_finite():
    values = VALUES.astype(np.float32)
    scan = Scan([values, np.full((2, 2), np.nan, np.float32)], Grid(((40, 30), (2, 2))), windows=[None, None])
    windowing = Windowing(scan, WindowConfig(percentiles=(10, 90)))
    low, high = np.percentile(VALUES, (10, 90))
    expected = np.rint(np.clip((VALUES - low) / (high - low), 0, 1) * 255)
    assert np.abs(windowing.gray(0) - expected).max() <= 1
    assert windowing.gray(1) == "slice has values that are not finite (NaN)"


def test_configuration_precedes_the_file_and_the_file_precedes_percentiles():
    scan = Scan([VALUES.astype(np.float32)], Grid((VALUES.shape,)), windows=[Window(0, 100)])
    for config, window in [
        (WindowConfig(center=300, width=50), Window(300, 50, "LINEAR_EXACT")),
        (WindowConfig(), Window(0, 100)),
    ]:
        np.testing.assert_array_equal(Windowing(scan, config).gray(0), windowed(VALUES, window))
    by_percentiles = Windowing(scan, WindowConfig(source="percentiles")).gray(0)
    assert not np.array_equal(by_percentiles, windowed(VALUES, Window(0, 100)))


def test_gray_levels_of_8_bits_stay_as_they_are_and_monochrome1_is_inverted():
    levels = np.arange(256).reshape(16, 16)
    np.testing.assert_array_equal(Windowing(scan_of(levels, bits=8), WindowConfig()).gray(0), levels)
    np.testing.assert_array_equal(Windowing(scan_of(levels, bits=8, inverted=True), WindowConfig()).gray(0), 255 - levels)


def test_a_constant_scan_has_a_window():
    assert np.unique(Windowing(scan_of(np.full((4, 4), 7)), WindowConfig()).gray(0)).size == 1


def test_pixels_become_square():
    ids = np.array([[0, 1], [2, 3]], np.uint8)
    assert squared(ids, (3.0, 1.0), nearest=True).tolist() == [[0, 1]] * 3 + [[2, 3]] * 3
    assert squared(ids, (1.0, 1.0)) is ids
    assert squared(ids, (float("nan"), 1.0)) is ids and squared(ids, (1e9, 1.0), nearest=True).shape == (32, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"center": 40}, "both center and width"), ({"percentiles": (99, 1)}, r"percentiles is \[99.0, 1.0\]; allowed")],
)
def test_impossible_windows_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        WindowConfig(**values)
