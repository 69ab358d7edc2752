"""Zero-shot classification of images in one folder per class, the layout of ImageNet (Deng et al. 2009) and many others.

    <path>/classes.txt                    optional: "<folder> <name>, <other name>" per line, e.g. ImageNet's synset mapping
    <path>/val/<folder>/<image>.jpg       .jpeg, .png, .webp; without classes.txt the folder's name is the class

The model predicts CLIP features of each image; the class is the one whose texts are nearest to them (Radford et al. 2021, arXiv
2103.00020). The teacher's entry in the table is the accuracy with the text encoder's own image features.
"""

# N samples, K classes

from pathlib import Path
from typing import Any

import numpy as np

from fourfold.evaluation.benchmarks.protocol import Benchmark, BenchmarkSplit, read_image
from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext
from fourfold.evaluation.tasks.features import choice_similarities, text_classifier
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, mean

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
CLASSES_FILE = "classes.txt"
TEMPLATES = ("a photo of a {}.", "a {}.", "an image of a {}.", "a drawing of a {}.")


def read_class_folders(split: BenchmarkSplit) -> Samples:
    """Return images with their class id as the truth `class_id`; at most `max_samples`, spread evenly over the classes.

    Raises:
        ValueError: the folder has another layout, or fewer than two classes.
    """
    names = class_names(split.folder, split.name)
    by_class = [_images(split.folder / split.name / folder) for folder in names]
    # Taking the i-th image of every class before the next one keeps the classes balanced when there is a limit.
    order = sorted((rank, class_id) for class_id, paths in enumerate(by_class) for rank in range(len(paths)))
    chosen = sorted((class_id, rank) for rank, class_id in order[: split.max_samples])
    paths = [by_class[class_id][rank] for class_id, rank in chosen]
    return Samples(
        keys=[f"{path.parent.name}/{path.name}" for path in paths],
        rgb=np.stack([read_image(path, split.side) for path in paths]),
        captions=[""] * len(paths),
        labels={},
        truth={"class_id": np.array([class_id for class_id, _ in chosen])},
        exact=True,
        choices=tuple(names.values()),
    )


def class_names(folder: Path, split: str) -> dict[str, str]:
    """Return the class name of each class folder, in sorted order of the folders.

    Raises:
        ValueError: there are fewer than two class folders, or `classes.txt` does not name one of them.
    """
    root = folder / split
    folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if len(folders) < 2:
        expected = f"Expected: {root}/<class>/<image>.jpg."
        raise ValueError(f"{root} has {len(folders)} class folders; at least 2 are needed. {expected}")
    listed = folder / CLASSES_FILE
    if not listed.exists():
        return {name: name.replace("_", " ") for name in folders}
    lines = [line.split(maxsplit=1) for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = {line[0]: line[-1].split(",")[0].strip() for line in lines}
    if missing := [name for name in folders if name not in names]:
        raise ValueError(f"{listed} does not name {missing[0]!r}. Write one line for each class folder: <folder> <name>.")
    return {name: names[name] for name in folders}


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def class_similarities(features: np.ndarray, context: TaskContext) -> np.ndarray:
    """Return the cosine of CLIP features (N, h, w, C) with each class, float64 (N, K)."""
    encoder = context.text_encoder
    texts = [[template.format(name) for template in TEMPLATES] for name in context.samples.choices]
    return choice_similarities(encoder.pool(features), text_classifier(encoder, texts))


def score_classes(similarity_NK: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `top_1` and `top_5` accuracy; classes with equal similarity are ranked by id."""
    class_id_N = context.samples.truth["class_id"]
    ranked_NK = np.argsort(-similarity_NK, axis=1, kind="stable")
    return {f"top_{k}": mean((ranked_NK[:, :k] == class_id_N[:, None]).any(axis=1)) for k in (1, 5)}


def class_frequencies(fitted: Samples) -> np.ndarray:
    """Return the number of samples of each class (K,): as similarities, they rank the most frequent class first."""
    return np.bincount(fitted.truth["class_id"], minlength=len(fitted.choices)).astype(np.float64)


def _teacher_features(context: TaskContext) -> Any:
    return context.text_encoder.encode_image(context.samples.rgb)[0]


CLASS_FOLDERS = Benchmark(
    name="class_folders",
    title="zero-shot classification",
    read=read_class_folders,
    tasks=(
        PredictionTask(
            source="rgb",
            target="clip",
            variant="classes",
            metrics=(
                Metric("top_1", "top-1 accuracy", "the nearest class is right"),
                Metric("top_5", "top-5 accuracy", "the right class is among the five nearest"),
            ),
            interpret=class_similarities,
            score=score_classes,
            trivial=class_frequencies,
            teacher=_teacher_features,
            exact_truth=("class_id",),
            needs_encoder=True,
        ),
    ),
)
