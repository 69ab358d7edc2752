"""Nearest neighbors with any modality as the query, and the kNN classifier (4M-21 §4; 4m-facts §6 and §7).

Two spaces. A feature label, e.g. "clip": the model predicts it from whatever is known, and it is pooled over its places, so a
caption and an image of one thing meet. "encoder": the mean of the encoder's features over visible tokens, for neighbors of
one modality.
"""

# N samples of the index, Q queries, C channels, K neighbors or classes

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fourfold.data.shards import ShardSet, collate
from fourfold.generation.any_to_any import AnyToAny
from fourfold.modalities import LABELS, label
from fourfold.progress import progress
from fourfold.reuse import FINGERPRINT_FILE, claim, fingerprint
from fourfold.storage import atomic_path, read_json, write_json

logger = logging.getLogger(__name__)

ENCODER = "encoder"
INDEX_FILE = "index.json"
QUERIES_AT_ONCE = 1024
FEATURES = ("features", "vector")  # kinds of labels that are points of a space


def embed(model: AnyToAny, conditions: Mapping[str, Any], space: str, batch_size: int = 64) -> np.ndarray:
    """Return unit vectors (B, C) float32 of B samples, from any conditions by label, as `AnyToAny.predict` takes them.

    Raises ValueError for a space that is neither "encoder" nor a feature label.
    """
    if space == ENCODER:
        return unit(model.features(conditions, batch_size))
    if label(space).kind not in FEATURES:
        known = [name for name, entry in LABELS.items() if entry.kind in FEATURES]
        raise ValueError(f"{space!r} is no space to search in. There are: {', '.join([ENCODER, *known])}.")
    predicted = np.asarray(model.predict(conditions, [space], batch_size=batch_size)[space], np.float32)
    return unit(predicted.reshape(len(predicted), -1, predicted.shape[-1]).mean(axis=1))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (…, C) of length 1, float32; zeros stay zeros."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Index:
    """The vectors of N samples in one space."""

    space: str
    split: str
    keys: tuple[str, ...]
    vectors_NC: np.ndarray  # float32, of length 1

    def nearest(self, queries_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return places in `keys` (Q, K) and cosines (Q, K), the nearest first, K = min(k, N); of equals the first."""
        return nearest(self.vectors_NC, queries_QC, k)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `build_index` wrote; raises ValueError when it is not whole."""
        if not (folder / INDEX_FILE).is_file():
            raise ValueError(f"{folder} holds no whole index ({INDEX_FILE} is missing). Build it first.")
        about = read_json(folder / INDEX_FILE)
        parts = [np.load(folder / name, allow_pickle=False) for name in about["parts"]]
        vectors_NC = np.concatenate(parts)
        if len(vectors_NC) != len(about["keys"]):
            raise ValueError(
                f"{folder} has {len(vectors_NC)} vectors for {len(about['keys'])} keys. Delete it, build it again."
            )
        return cls(about["space"], about["split"], tuple(about["keys"]), vectors_NC)


def build_index(
    model: AnyToAny, shards: ShardSet, split: str, folder: Path, by: str = "rgb", space: str = "clip", batch_size: int = 64
) -> Index:
    """Embed every sample of a split by one of its modalities and keep the vectors in `folder`; killed, it goes on.

    A folder that holds the index of another model, split or space is built afresh. Raises ValueError for a folder with
    anything else in it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / FINGERPRINT_FILE).exists():
        raise ValueError(f"{folder} holds other files. Name an empty folder for the index, or one that does not exist.")
    inputs = {"model": model.digest(), "shards": shards.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, split=split, by=by, space=space))
    if not (folder / INDEX_FILE).is_file():
        names = shards.shard_names(split)
        parts = [name.removesuffix(".tar") + ".npy" for name in names]
        for name, part in progress(list(zip(names, parts, strict=True)), "Building the index", unit="shard"):
            if not (folder / part).exists():
                values = collate(shards.read(split, [by], name))[by]
                with atomic_path(folder / part) as temporary, temporary.open("wb") as file:
                    np.save(file, embed(model, {by: values}, space, batch_size), allow_pickle=False)
        write_json(folder / INDEX_FILE, {"split": split, "by": by, "space": space, "keys": shards.keys(split), "parts": parts})
    return Index.load(folder)


def nearest(gallery_NC: np.ndarray, queries_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the gallery (Q, K) and their cosines (Q, K) for unit vectors; exact, some queries at a time."""
    k = min(k, len(gallery_NC))
    places, cosines = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    for first in range(0, len(queries_QC), QUERIES_AT_ONCE):
        cosine_QN = queries_QC[first : first + QUERIES_AT_ONCE] @ gallery_NC.T
        order_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, :k]
        places.append(order_QK)
        cosines.append(np.take_along_axis(cosine_QN, order_QK, axis=1))
    return np.concatenate(places), np.concatenate(cosines)


def knn_classify(
    gallery_NC: np.ndarray, classes_N: np.ndarray, queries_QC: np.ndarray, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Return the class (Q,) that the k nearest samples vote for, each with weight exp(cosine / temperature); int64.

    k and temperature are those of 4M-21's ImageNet figures (after Wu et al. 2018). Of equal votes the lowest class wins.
    """
    places_QK, cosine_QK = nearest(unit(gallery_NC), unit(queries_QC), k)
    weight_QK = np.exp((cosine_QK.astype(np.float64) - 1) / temperature)  # − 1: no overflow, and the same ranking
    votes_QK = np.zeros((len(queries_QC), int(classes_N.max()) + 1))
    np.add.at(votes_QK, (np.arange(len(queries_QC))[:, None], classes_N[places_QK]), weight_QK)
    return votes_QK.argmax(axis=1)
