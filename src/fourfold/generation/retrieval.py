"""Nearest neighbors with any modality as the query, and the kNN classifier (4M-21, arXiv 2406.09406 §4).

There are two kinds of spaces. A feature label, e.g. "clip": the model predicts it from any conditions and the result is
averaged over its positions, so a caption and an image of the same object are close. "encoder": the encoder's features
averaged over visible tokens, for neighbors within one modality.
"""

# N samples of the index, Q queries, C channels, K neighbors or classes

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fourfold.data.shards import ShardSet, collate
from fourfold.digests import check_digests, is_intact, recorded_path, write_recorded_json
from fourfold.generation.any_to_any import AnyToAny
from fourfold.modalities import LABELS, label
from fourfold.progress import progress
from fourfold.reuse import FINGERPRINT_FILE, claim, fingerprint
from fourfold.storage import read_json

logger = logging.getLogger(__name__)

ENCODER = "encoder"
INDEX_FILE = "index.json"
REMEDY = "Delete the folder and build the index again."
QUERY_BATCH_SIZE = 1024  # bounds the memory of the matrix of cosines
FEATURES = ("features", "vector")  # kinds of labels that can be a space


def embed(model: AnyToAny, conditions: Mapping[str, Any], space: str, batch_size: int = 64) -> np.ndarray:
    """Return unit vectors float32 (B, C) of B samples, from conditions as for `AnyToAny.predict`.

    Raises:
        ValueError: `space` is neither "encoder" nor a feature label.
    """
    if space == ENCODER:
        return unit(model.features(conditions, batch_size))
    if label(space).kind not in FEATURES:
        known = [name for name, entry in LABELS.items() if entry.kind in FEATURES]
        raise ValueError(f"Unknown space {space!r}. Known: {', '.join([ENCODER, *known])}.")
    predicted = np.asarray(model.predict(conditions, [space], batch_size=batch_size)[space], np.float32)
    return unit(predicted.reshape(len(predicted), -1, predicted.shape[-1]).mean(axis=1))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (…, C) scaled to length 1, float32; zeros stay zeros."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Index:
    """The vectors of N samples in one space."""

    space: str
    split: str
    keys: tuple[str, ...]
    vectors_NC: np.ndarray  # float32, unit length

    def nearest(self, queries_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return indices into `keys` (Q, K) and cosines (Q, K), the nearest first, K = min(k, N).

        Equally near samples are in the order of `keys`.
        """
        return nearest(self.vectors_NC, queries_QC, k)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `build_index` wrote; raises ValueError when it is not complete, or changed since."""
        if not (folder / INDEX_FILE).is_file():
            raise ValueError(f"{folder} has no complete index ({INDEX_FILE} is missing). Build it first.")
        check_digests(folder, REMEDY, INDEX_FILE)  # before its content is used
        about = read_json(folder / INDEX_FILE)
        check_digests(folder, REMEDY, *about["parts"])
        parts = [np.load(folder / name, allow_pickle=False) for name in about["parts"]]
        vectors_NC = np.concatenate(parts)
        if len(vectors_NC) != len(about["keys"]):
            raise ValueError(f"{folder} has {len(vectors_NC)} vectors for {len(about['keys'])} keys. {REMEDY}")
        return cls(about["space"], about["split"], tuple(about["keys"]), vectors_NC)


def build_index(
    model: AnyToAny, shards: ShardSet, split: str, folder: Path, by: str = "rgb", space: str = "clip", batch_size: int = 64
) -> Index:
    """Embed every sample of a split by one of its modalities, and store the vectors in `folder`.

    A killed run resumes at the next shard, and vectors that changed since are computed again. The index of another model,
    split or space in `folder` is replaced.

    Args:
        model: computes the vectors.
        shards: the samples.
        split: which samples.
        folder: where the vectors are stored, one file for each shard.
        by: the modality of the samples that is embedded.
        space: see `embed`.
        batch_size: samples embedded at once.

    Raises:
        ValueError: `folder` contains other files.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / FINGERPRINT_FILE).exists():
        raise ValueError(f"{folder} contains other files. Choose an empty folder for the index, or one that does not exist.")
    inputs = {"model": model.digest(), "shards": shards.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, split=split, by=by, space=space))
    names = shards.shard_names(split)
    parts = [name.removesuffix(".tar") + ".npy" for name in names]
    for name, part in progress(list(zip(names, parts, strict=True)), "Building the index", unit="shard"):
        if not is_intact(folder, part):
            values = collate(shards.read(split, [by], name))[by]
            with recorded_path(folder, part) as temporary, temporary.open("wb") as file:
                np.save(file, embed(model, {by: values}, space, batch_size), allow_pickle=False)
    if not is_intact(folder, INDEX_FILE):
        about = {"split": split, "by": by, "space": space, "keys": shards.keys(split), "parts": parts}
        write_recorded_json(folder, INDEX_FILE, about)
    return Index.load(folder)


def nearest(gallery_NC: np.ndarray, queries_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (Q, K) of the nearest gallery vectors and their cosines (Q, K), for unit vectors; exact search."""
    k = min(k, len(gallery_NC))
    indices, cosines = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    for first in range(0, len(queries_QC), QUERY_BATCH_SIZE):
        cosine_QN = queries_QC[first : first + QUERY_BATCH_SIZE] @ gallery_NC.T
        order_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, :k]
        indices.append(order_QK)
        cosines.append(np.take_along_axis(cosine_QN, order_QK, axis=1))
    return np.concatenate(indices), np.concatenate(cosines)


def knn_classify(
    gallery_NC: np.ndarray, classes_N: np.ndarray, queries_QC: np.ndarray, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Return the class int64 (Q,) with most votes of the k nearest samples, weighted by exp(cosine / temperature).

    The defaults are those of 4M-21's ImageNet results (arXiv 2406.09406 §4), after Wu et al. (arXiv 1805.01978 §3.4).
    If votes are equal, the lowest class wins.
    """
    indices_QK, cosine_QK = nearest(unit(gallery_NC), unit(queries_QC), k)
    # subtracting 1 avoids overflow and keeps the ranking
    weight_QK = np.exp((cosine_QK.astype(np.float64) - 1) / temperature)
    votes_QK = np.zeros((len(queries_QC), int(classes_N.max()) + 1))
    np.add.at(votes_QK, (np.arange(len(queries_QC))[:, None], classes_N[indices_QK]), weight_QK)
    return votes_QK.argmax(axis=1)
