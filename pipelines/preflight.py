"""Checks of a run before it changes anything: sources, sizes of splits and free space."""

import math
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fourfold.data.ingestion.ingest import HASHED_SPLITS, expected_samples
from fourfold.modalities import SOURCE_LABELS
from pipelines.parameters import Parameters
from pipelines.places import is_on_disk_of, shards_place
from pipelines.sizes import SETS
from pipelines.sources import check_paths

DATA, CACHE = Path("data"), Path(".dvc")
# Bytes of a sample in the shards, measured on rendered scenes, which compress better than photographs: so a run is refused
# only if it surely does not fit (docs/reliability.md has the formula).
BYTES_PER_PIXEL = {"rgb": 0.6, "depth": 2.0, "normal": 2.6, "semseg": 0.2, "clip": 2.0}
MIN_CODEBOOK_USE = 0.2  # on `val`; less stops the run after tokenizer training (conf/base/catalog.yml, tokenizer_metrics)
MEMBER_BYTES = 1024  # of a tar: a header of 512 bytes, and content that is padded to 512


def check(stages: Collection[str], parameters: dict[str, Any], catalog: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Check what a run reads from outside, and that its splits and its disk are large enough.

    Args:
        stages: the stages of the run.
        parameters: all parameters; they are valid.
        catalog: the configuration of the catalog, which says where shards are kept.

    Raises:
        ValueError: a labeler, a source or a public benchmark that is learned is missing, a split is too small for the settings,
            or the disk for the results.
    """
    if "pretraining" in stages:
        check_start((parameters.get("pretraining") or {}).get("start_from"))
    if "pseudo_labeling" in stages:
        check_labelers(Parameters.model_validate(parameters))
    if "finetuning" in stages:
        Parameters.model_validate(parameters).finetuning.check_data()
    if "ingestion" not in stages:
        return
    check_paths(parameters.get("ingestion") or {})
    values = Parameters.model_validate(parameters)
    if (sizes := expected_samples(values.ingestion)) is not None:
        check_sizes(stages, values, sizes)
        place = shards_place(catalog, DATA / SETS["images"])
        check_space(_needed_on_disk(stages, values, sizes, place), sum(sizes.values()), place)


def check_labelers(values: Parameters) -> None:
    """Raise ValueError if a labeler lacks a package or a file: a long ingestion would come before the error."""
    labeling = values.pseudo_labeling
    for modality, labeler in labeling.labeler_classes().items():
        try:
            labeler.require(labeling.settings_of(labeler))
        except ValueError as error:
            raise ValueError(f"pseudo_labeling.labelers.{modality}: {error}") from error


def check_start(path: str | Path | None) -> None:
    """Raise ValueError if the model that pretraining starts from does not exist."""
    if path is not None and not Path(path).exists():
        raise ValueError(f"pretraining.start_from is {path}, which does not exist. Give a folder or a released file.")


def check_sizes(stages: Collection[str], values: Parameters, sizes: Mapping[str, int]) -> None:
    """Raise ValueError with every split that is too small for the settings of a stage.

    Args:
        stages: the stages of the run.
        values: all parameters.
        sizes: number of samples of each split, at most.
    """
    required = [(split, 1, "one sample") for split in HASHED_SPLITS]
    if "tokenizer_training" in stages:
        required += _tokenizer_sizes(values)
    if "pretraining" in stages and not values.pretraining.datasets:
        required.append(("train", values.pretraining.batch_size, "pretraining.batch_size"))
    if "finetuning" in stages and "transfer_train" in sizes and values.finetuning.reads_transfer_splits:
        required.append(("transfer_train", max(values.finetuning.num_labels), "finetuning.num_labels"))
    problems = [
        f"split {split!r} gets {sizes.get(split, 0)} samples at most, and {text} needs {count}"
        for split, count, text in required
        if sizes.get(split, 0) < count
    ]
    if problems:
        raise ValueError(
            f"The source has too few samples: {'; '.join(problems)}. Give more images or lower these settings; nothing was "
            "changed."
        )


def _tokenizer_sizes(values: Parameters) -> list[tuple[str, int, str]]:
    """Return split, number of samples at least, and what needs them, for the training and the validation of tokenizers."""
    tokenizers, required = values.tokenizer_training, list[tuple[str, int, str]]()
    labeled = {*SOURCE_LABELS, *values.pseudo_labeling.labelers}  # other tokenizers are left out
    for name, visual in ((n, one) for n, one in tokenizers.visual.items() if n in labeled):
        rows, columns = tokenizers.grid_of(name)
        patch = max(1, values.ingestion.image_size // rows)
        grids = {name: rows * columns}  # cells of an image
        grids |= {f"{name}@{side}": max(1, side // patch) ** 2 for side in tokenizers.resolutions.get(name, ())}
        key = f"tokenizer_training.visual.{name}"
        codes = f"the {visual.codebook_size} codes of {key}.codebook_size"
        # Of an image, each cell gives one latent; a code without a latent is useless. Tokens of vectors have a codebook each
        required.append(("train", _rounded_up(visual.codebook_size / (rows * columns)), codes))
        required.append(("train", visual.batch_size, f"{key}.batch_size"))
        for full_name, cells in grids.items():
            images = MIN_CODEBOOK_USE * visual.codebook_size / (cells if visual.vector is None else 1)
            text = f"a {full_name}/codebook_use of {MIN_CODEBOOK_USE} of {codes}"
            required.append(("val", _rounded_up(images), text))
    for name, diffusion in tokenizers.diffusion.items():
        required.append(("train", diffusion.batch_size, f"tokenizer_training.diffusion.{name}.batch_size"))
    return required


def _rounded_up(number: float) -> int:
    return math.ceil(number - 1e-9)  # 0.2 * 15 is a little more than 3


def _needed_on_disk(stages: Collection[str], values: Parameters, sizes: Mapping[str, int], place: str) -> int:
    """Return the bytes that a run needs on the disk of `data/` at least.

    Of shards in a bucket this is what ingestion stages: all images and captions, until they are in shards. If a folder on the
    same disk keeps them, each equal shard is there once, and DVC has no copy.
    """
    if not place:
        return len(_places()) * needed_bytes(stages, values, sizes)
    staged = needed_bytes(["ingestion"], values, sizes)
    return max(staged, needed_bytes(stages, values, sizes, label_copies=1)) if is_on_disk_of(place, DATA) else staged


def needed_bytes(stages: Collection[str], values: Parameters, sizes: Mapping[str, int], label_copies: int = 2) -> int:
    """Return the bytes that shards, labels and tokens of a run take at least, without DVC's cache.

    Args:
        stages: the stages of the run.
        values: all parameters.
        sizes: number of samples of each split, at most.
        label_copies: how often a label is stored: as the labeler returned it, and combined with the others.
    """
    pixels = values.ingestion.image_size**2
    labels = values.pseudo_labeling.labelers
    total = sum(sizes.values())
    stored = _member("rgb", pixels) if values.ingestion.storage.format == "png" else MEMBER_BYTES
    needed = total * (stored + MEMBER_BYTES)
    if "pseudo_labeling" in stages:
        labeled = total - sizes.get(values.pseudo_labeling.annotated_split, 0) - _not_stored(values, sizes)
        needed += label_copies * labeled * sum(_member(name, pixels) for name in labels)
    if "tokenizer_training" in stages:  # tokens of all labels and of the image, and the captions
        needed += (sizes.get("train", 0) + sizes.get("val", 0)) * MEMBER_BYTES * (len(labels) + 2)
    return needed


def _not_stored(values: Parameters, sizes: Mapping[str, int]) -> int:
    """Return the number of training samples whose labels are computed when they are tokenized."""
    labeling, training = values.pseudo_labeling, sizes.get("train", 0)
    return {"all": 0, "sample": max(0, training - labeling.sample_size), "none": training}[labeling.keep]


def _places() -> list[Path]:
    """Return the folders on the disk of `data/` that have a copy of the results: DVC keeps one in its cache."""
    shares_disk = CACHE.is_dir() and DATA.is_dir() and CACHE.stat().st_dev == DATA.stat().st_dev
    return [DATA, CACHE] if shares_disk else [DATA]


def check_space(needed: int, num_samples: int, place: str = "") -> None:
    """Raise ValueError if the disk of `data/` is too small, even if every present result is replaced.

    Args:
        needed: bytes on this disk, with copies.
        num_samples: number of samples that they are for, for the message.
        place: where shards are kept, if not in `data/`.
    """
    if not DATA.is_dir():
        return
    places = _places()
    free = shutil.disk_usage(DATA).free
    if needed <= free or needed <= free + sum(map(_used_bytes, places)):
        return
    where = f"in {' and '.join(map(str, places))}"
    if place:
        where = f"in {DATA} and {place}" if is_on_disk_of(place, DATA) else f"in {DATA} while images are ingested"
    raise ValueError(
        f"The run needs at least {_readable(needed)} for {num_samples:,} samples {where}, and "
        f"{_readable(free)} are free at {DATA.resolve()}. Free space, move the project to a larger disk, or ingest fewer "
        "samples; nothing was changed."
    )


def _member(name: str, pixels: int) -> int:
    return MEMBER_BYTES + int(BYTES_PER_PIXEL.get(name, 0) * pixels)


def _used_bytes(folder: Path) -> int:
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in files)


def _readable(count: int) -> str:
    unit = max((unit for unit in range(5) if count >= 1000**unit), default=0)
    return f"{count / 1000**unit:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
