"""ImageNet-1K (Russakovsky et al. 2015, arXiv 1409.0575): classification zero-shot, by features, and fine-tuned.

Class indices 0 to 999 are the ranks of the WordNet ids. The ids in `ILSVRC2012_validation_ground_truth.txt` are numbered
differently: `meta.mat` of the development kit translates them.
"""

import csv
import os
from pathlib import Path

import numpy as np
import scipy.io

from fourfold.evaluation.benchmarks.object_measures import ClassMeasure, FeatureMeasure, ZeroShotMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark, Published, Run, StoredExamples
from fourfold.evaluation.benchmarks.sets.reading import read_lines, read_rgb
from fourfold.metrics.classification import LinearProbe
from fourfold.metrics.metric import Metric

METRICS = (Metric("top_1", "top-1", "accuracy"), Metric("top_5", "top-5", "the class is among the first five"))
DEVKIT = "ILSVRC2012_devkit_t12/data"
NAMES = "LOC_synset_mapping.txt"  # Kaggle: "n01440764 tench, Tinca tinca"
SOLUTION = "LOC_val_solution.csv"  # Kaggle: "ILSVRC2012_val_00048981,n03995372 85 1 499 272"


def synsets(folder: Path) -> dict[str, str]:
    """Return the first name of each WordNet id, sorted by id: from Kaggle's list or from `meta.mat` of the kit.

    Raises:
        ValueError: neither is there.
    """
    if (folder / NAMES).is_file():
        pairs = [line.split(maxsplit=1) for line in read_lines(folder / NAMES)]
        return {wnid: words.split(",")[0] for wnid, words in sorted(pairs)}
    return {wnid: words.split(",")[0] for _, wnid, words in sorted(_meta(folder), key=lambda row: row[1])}


def _meta(folder: Path) -> list[tuple[int, str, str]]:
    """Return ILSVRC id, WordNet id and words of each class."""
    try:
        rows = scipy.io.loadmat(folder / DEVKIT / "meta.mat", squeeze_me=True)["synsets"]
        return [(int(r["ILSVRC2012_ID"]), str(r["WNID"]), str(r["words"])) for r in rows if int(r["num_children"]) == 0]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} has neither {NAMES} nor a readable {DEVKIT}/meta.mat ({error}). Add one of them: it names the classes."
        ) from error


def labeled_images(folder: Path, split: str) -> tuple[Path, list[tuple[str, str]]]:
    """Return the folder of a split, and its images in order of their names: paths in that folder with their WordNet ids.

    A split is a folder for each WordNet id, or a flat folder with Kaggle's solution or the ground truth of the kit.

    Raises:
        ValueError: there are no images, or no labels for them.
    """
    root = next((each for each in (folder / split, folder / "ILSVRC/Data/CLS-LOC" / split) if each.is_dir()), folder / split)
    classes = sorted(path.name for path in root.glob("n*") if path.is_dir())
    nested = [(f"{wnid}/{name}", wnid) for wnid in classes for name in _images(root / wnid)]
    flat = [] if nested else _images(root)
    if not nested and not flat:
        raise ValueError(f"{root} has no images. Expected: {root}/<WordNet id>/<name>.JPEG, or {root}/<name>.JPEG.")
    if nested:
        return root, nested
    if (folder / SOLUTION).is_file():
        with (folder / SOLUTION).open(encoding="utf-8", newline="") as file:
            wnid_of = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    else:
        by_number = {number: wnid for number, wnid, _ in _meta(folder)}
        truth = read_lines(folder / DEVKIT / "ILSVRC2012_validation_ground_truth.txt")
        wnid_of = {f"ILSVRC2012_val_{i:08d}": by_number[int(number)] for i, number in enumerate(truth, 1)}
    if unknown := [name for name in flat if Path(name).stem not in wnid_of]:
        raise ValueError(f"{root / unknown[0]} has no label in {folder}. Add the official list of labels, or remove the file.")
    return root, [(name, wnid_of[Path(name).stem]) for name in flat]


def _images(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".JPEG") if folder.is_dir() else []


def read_imagenet(folder: Path, split: str) -> StoredExamples:
    """Return images with their class index; a path and an index take 50 bytes or so.

    Raises:
        ValueError: there are no images or no labels, or a class has no name.
    """
    index_of = {wnid: index for index, wnid in enumerate(synsets(folder))}
    root, labeled = labeled_images(folder, split)
    if unknown := sorted({wnid for _, wnid in labeled} - set(index_of)):
        raise ValueError(f"{root} has the class {unknown[0]}, which {folder} does not name. Use the official list of classes.")
    names = np.array([os.fsencode(name) for name, _ in labeled])  # of a fixed length: a fifth of the memory of a list
    class_N = np.array([index_of[wnid] for _, wnid in labeled], np.int16)

    def load(row: tuple[bytes, int]) -> Example:
        path = root / os.fsdecode(row[0])
        return Example(path.stem, read_rgb(path), int(row[1]))

    return StoredExamples(np.rec.fromarrays([names, class_N]), load, class_N)  # type: ignore[arg-type]


def _zero_shot(run: Run) -> ZeroShotMeasure:
    return ZeroShotMeasure(run, list(synsets(run.config.path).values()))


def _neighbors(run: Run) -> FeatureMeasure:
    return FeatureMeasure(run, read_imagenet(run.config.path, "train"), list(synsets(run.config.path).values()))


def _linear(run: Run) -> FeatureMeasure:
    names = list(synsets(run.config.path).values())
    return FeatureMeasure(run, read_imagenet(run.config.path, "train"), names, LinearProbe)


def _fine_tuned(run: Run) -> ClassMeasure:
    return ClassMeasure(run, list(synsets(run.config.path).values()))


def _imagenet(name: str, title: str, protocol: str, **others: object) -> OfficialBenchmark:
    return OfficialBenchmark(
        name=name,
        title=title,
        site="the ImageNet page (image-net.org) or its Kaggle challenge",
        layout=("{split}|ILSVRC/Data/CLS-LOC/{split}", f"{NAMES}|{DEVKIT}/meta.mat"),
        read=read_imagenet,
        metrics=METRICS,
        protocol=protocol,
        splits=("train", "val"),
        view="crop",
        sizes={"train": 1281167, "val": 50000},
        **others,  # type: ignore[arg-type]
    )


IMAGENET_BENCHMARKS = (
    _imagenet(
        "imagenet_zero_shot",
        "ImageNet-1K, zero-shot",
        "nearest class in the space of predicted CLIP features; 4 prompts per class",
        measure=_zero_shot,
    ),
    _imagenet(
        "imagenet_knn",
        "ImageNet-1K, nearest neighbors",
        "encoder features, k = 20, temperature 0.07, all training images",
        measure=_neighbors,
        published=(
            Published("4M-21 B, predicted DINOv2 features", "top_1", 0.731, "arXiv 2406.09406, table 1"),
            Published("4M-21 XL, predicted DINOv2 features", "top_1", 0.783, "arXiv 2406.09406, table 1"),
            Published("DINOv2-B", "top_1", 0.821, "arXiv 2406.09406, table 1"),
        ),
    ),
    _imagenet(
        "imagenet_linear",
        "ImageNet-1K, linear probe",
        "logistic regression on encoder features, averaged over tokens, all training images, no augmentation",
        measure=_linear,
    ),
)
# Not in BENCHMARKS: it needs a model that was trained on the classes (fourfold.transfer.benchmarks).
IMAGENET = _imagenet(
    "imagenet",
    "ImageNet-1K",
    "classes of a model that was fine-tuned on the training split; one crop, the center square",
    measure=_fine_tuned,
    train_split="train",
)
