"""NYUv2, KITTI and DIODE: depth and normals.

NYUv2 (Silberman et al. 2012) is read from the official MATLAB files, KITTI (Geiger et al. 2013) from its raw folders with the
improved ground truth (Uhrig et al. 2017), DIODE (Vasiljevic et al. 2019, arXiv 1908.00463) from its folders.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from fourfold.evaluation.benchmarks.dense_measures import DepthMeasure, NormalMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark, Published, StoredExamples
from fourfold.evaluation.benchmarks.sets.reading import read_ids, read_lines, read_rgb, same_size
from fourfold.metrics.depth import DepthProtocol
from fourfold.metrics.metric import Metric

logger = logging.getLogger(__name__)
DEPTH_METRICS = (
    Metric("abs_rel", "AbsRel", "mean relative error of depth, averaged over images", lower_is_better=True),
    Metric("rmse", "RMSE", "meters, averaged over images", lower_is_better=True),
    Metric("rmse_log", "RMSE log", "of natural logarithms, averaged over images", lower_is_better=True),
    Metric("log10", "log₁₀", "mean error of decimal logarithms", lower_is_better=True),
    Metric("sq_rel", "SqRel", "squared error by depth", lower_is_better=True),
    Metric("silog", "SILog", "100 times the deviation of log errors", lower_is_better=True),
    Metric("delta1", "δ₁", "share of pixels within a factor of 1.25"),
    Metric("delta2", "δ₂", "within 1.25²"),
    Metric("delta3", "δ₃", "within 1.25³"),
)
NORMAL_METRICS = (
    Metric("mean", "mean angle", "degrees, over all pixels of the split", lower_is_better=True),
    Metric("median", "median angle", "degrees", lower_is_better=True),
    Metric("rmse", "RMSE", "degrees", lower_is_better=True),
    Metric("within_5", "5°", "share of pixels below"),
    Metric("within_7.5", "7.5°", "share of pixels below"),
    Metric("within_11.25", "11.25°", "share of pixels below"),
    Metric("within_22.5", "22.5°", "share of pixels below"),
    Metric("within_30", "30°", "share of pixels below"),
)
NYU_FILE, NYU_SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
KITTI_LIST = "{split}_files.txt"


def nyu_indices(folder: Path, split: str) -> np.ndarray:
    """Return the images of a split, counted from 0, in the order of `splits.mat`, which counts from 1."""
    try:
        content = scipy.io.loadmat(folder / NYU_SPLITS)
        return content[{"train": "trainNdxs", "test": "testNdxs"}[split]].ravel().astype(int) - 1
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / NYU_SPLITS} has no list of split {split!r} ({error}). Download it again.") from error


def require_h5py() -> Any:
    """Return the module h5py; raises ValueError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "NYUv2 is an HDF5 file: h5py is needed. Install it with `pip install fourfold[benchmarks]`."
        ) from error
    return h5py


def open_hdf5(path: Path) -> Any:
    """Return a MATLAB 7.3 file opened by h5py; raises ValueError if h5py is absent or the file damaged."""
    h5py = require_h5py()
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}. Download it again.") from error


def read_nyu_depth(folder: Path, split: str) -> StoredExamples:
    """Return images with raw depth in meters, 0 where the sensor has none."""
    return read_nyu(folder, split, "rawDepths", lambda depth_HW: depth_HW.astype(np.float64))


def read_nyu(folder: Path, split: str, kind: str, truth: Callable[[np.ndarray], np.ndarray]) -> StoredExamples:
    """Return images with an array of the file; arrays of the file are transposed.

    Args:
        folder: of NYUv2.
        split: `train` or `test`.
        kind: name of the array in the file.
        truth: changes the array (H, W) of an image.

    Raises:
        ValueError: h5py is absent, or the list of splits is damaged.
    """
    require_h5py()

    def load(index: int) -> Example:
        # Opened for each image: processes and threads that share an open HDF5 file would disturb each other
        with open_hdf5(folder / NYU_FILE) as file:
            rgb, values = np.transpose(file["images"][index], (2, 1, 0)), np.transpose(file[kind][index])
        return Example(f"{index + 1:04d}", rgb, truth(values))

    return StoredExamples(nyu_indices(folder, split).tolist(), load)


def read_kitti(folder: Path, split: str) -> StoredExamples:
    """Return the frames of an Eigen list that have improved ground truth, in meters, 0 where there is none."""
    source = folder / KITTI_LIST.format(split=split)
    pairs = [kitti_paths(line, source) for line in read_lines(source)]
    found = [(image, _existing(folder, truth) if truth else None) for image, truth in pairs]
    known = [(image, path.relative_to(folder).as_posix()) for image, path in found if path is not None]
    logger.info("%s: %d of %d frames have improved ground truth; the others are left out.", source, len(known), len(pairs))

    def load(row: tuple[str, str]) -> Example:
        rgb, path = read_rgb(folder / row[0]), folder / row[1]
        return Example(row[0].removesuffix(".png"), rgb, same_size(read_ids(path) / 256.0, rgb, path))

    return StoredExamples(known, load)


def _existing(folder: Path, truth: str) -> Path | None:
    """Return the file of a truth: beside the raw drive, or in the `train` or `val` folder of the depth archive."""
    drive = truth.partition("/")[0]
    places = (folder / truth, folder / drive[:10] / truth, folder / "train" / truth, folder / "val" / truth)
    return next((place for place in places if place.is_file()), None)


def kitti_paths(line: str, source: Path) -> tuple[str, str | None]:
    """Return image and truth of a line in the form of BTS or of Monodepth2; the truth is None where BTS has none.

    Raises:
        ValueError: the line has another form.
    """
    words = line.split()
    if len(words) >= 2 and words[0].endswith(".png"):  # BTS: image, truth or None, focal length
        return words[0], None if words[1] == "None" else words[1]
    if len(words) >= 2 and words[1].isdecimal():  # Monodepth2: drive, frame, side
        drive, frame = words[0], f"{int(words[1]):010d}.png"
        camera = "image_03" if words[2:] == ["r"] else "image_02"
        name = drive.rpartition("/")[2]
        return f"{drive}/{camera}/data/{frame}", f"{name}/proj_depth/groundtruth/{camera}/{frame}"
    raise ValueError(
        f"{source} has the line {line!r}. Expected: IMAGE.png TRUTH.png FOCAL (as in BTS) or DRIVE FRAME SIDE (Monodepth2)."
    )


def _read_diode(folder: Path, split: str, kind: str) -> StoredExamples:
    def load(name: str) -> Example:
        path = folder / name
        rgb, base = read_rgb(path), path.with_suffix("")
        try:
            value = np.load(f"{base}_{kind}.npy", allow_pickle=False).astype(np.float64)
            known = np.load(f"{base}_depth_mask.npy", allow_pickle=False) > 0 if kind == "depth" else None
        except (OSError, ValueError) as error:
            raise ValueError(f"{base}_{kind}.npy cannot be read: {error}. Download it again.") from error
        value = value.squeeze(-1) if value.ndim == 3 and kind == "depth" else value
        value = same_size(value, rgb, Path(f"{base}_{kind}.npy"))
        return Example(name.removesuffix(".png"), rgb, value if known is None else np.where(known, value, 0))

    paths = sorted(folder.glob(f"{split}/*/scene_*/scan_*/*.png"))
    return StoredExamples([path.relative_to(folder).as_posix() for path in paths], load)


def read_diode_depth(folder: Path, split: str) -> StoredExamples:
    """Return images with depth in meters, 0 outside of the mask."""
    return _read_diode(folder, split, "depth")


def read_diode_normals(folder: Path, split: str) -> StoredExamples:
    """Return images with normals as stored, zero where there is none."""
    return _read_diode(folder, split, "normal")


DIODE_LAYOUT = ("{split}/*/scene_*/scan_*/*.png",)
DEPTH_BENCHMARKS = (
    OfficialBenchmark(
        name="nyuv2_depth",
        title="NYUv2 depth",
        site="the NYU Depth Dataset V2 page of New York University (cs.nyu.edu)",
        layout=(NYU_FILE, NYU_SPLITS),
        read=read_nyu_depth,
        measure=lambda run: DepthMeasure(run, DepthProtocol("eigen_nyu", max_depth=10.0), scale=1000),
        metrics=DEPTH_METRICS,
        protocol="Eigen crop, raw depth, 0.001 to 10 m, mean over 654 images (as BTS)",
        split="test",
        splits=("train", "test"),
        train_split="train",
        sizes={"train": 795, "test": 654},
        published=(
            Published("DenseDepth, DenseNet-169", "abs_rel", 0.123, "arXiv 1812.11941"),
            Published("DenseDepth, DenseNet-169", "rmse", 0.465, "arXiv 1812.11941"),
            Published("DenseDepth, DenseNet-169", "delta1", 0.846, "arXiv 1812.11941"),
            Published("4M-21 XL, fine-tuned, protocol of MultiMAE", "delta1", 0.965, "arXiv 2406.09406, table 2"),
        ),
    ),
    OfficialBenchmark(
        name="kitti_depth",
        title="KITTI depth, Eigen split",
        site="the KITTI Vision Benchmark Suite (cvlibs.net); the lists are those of BTS or Monodepth2",
        layout=(KITTI_LIST, "20*_*_*"),
        read=read_kitti,
        measure=lambda run: DepthMeasure(run, DepthProtocol("garg", max_depth=80.0), scale=256),
        metrics=DEPTH_METRICS,
        protocol="Garg crop, improved ground truth, 0.001 to 80 m, mean over 652 images (as BTS)",
        split="eigen_test",
        splits=("eigen_train", "eigen_test"),
        train_split="eigen_train",
        view="windows",
        sizes={"eigen_test": 652},
        published=(
            Published("Monodepth2, R18 stereo, raw LiDAR truth, 697 images", "abs_rel", 0.109, "arXiv 1806.01260"),
            Published("Monodepth2, R18 stereo, raw LiDAR truth, 697 images", "delta1", 0.864, "arXiv 1806.01260"),
        ),
    ),
    OfficialBenchmark(
        name="diode_depth",
        title="DIODE depth",
        site="the DIODE page (diode-dataset.org)",
        layout=DIODE_LAYOUT,
        read=read_diode_depth,
        measure=lambda run: DepthMeasure(run, DepthProtocol("none", max_depth=300.0), scale=200),
        metrics=DEPTH_METRICS,
        protocol="all pixels of the mask, 0.001 to 300 m, mean over images",
        splits=("train", "val"),
        train_split="train",
    ),
    OfficialBenchmark(
        name="diode_normals",
        title="DIODE normals",
        site="the DIODE page (diode-dataset.org); normals are a separate archive",
        layout=(*DIODE_LAYOUT, "{split}/*/scene_*/scan_*/*_normal.npy"),
        read=read_diode_normals,
        measure=NormalMeasure,
        metrics=NORMAL_METRICS,
        protocol="all pixels with a normal, pooled over the split; check the axes with normal_signs",
        splits=("train", "val"),
        published=(
            Published("4M-21 XL, 10 samples, 224²", "mean", 20.8, "arXiv 2406.09406, table 1"),
            Published("Omnidata DPT", "mean", 22.5, "arXiv 2406.09406, table 1"),
        ),
    ),
)
