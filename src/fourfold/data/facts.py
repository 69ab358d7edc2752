"""Facts about stored values: one row for each sample of a shard, in a Parquet file beside it.

They are computed while a shard is written, when the values are at hand, so that a validation reads a few columns of numbers
instead of decoding every image again. A shard without such a file, or with one of other bytes, is decoded once
(`facts_beside`).
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data import codecs, tars
from fourfold.data.captions import captions_of
from fourfold.data.missing import MISSING_TOKEN, Missing
from fourfold.modalities import LABELS, ClassTable
from fourfold.storage import atomic_path

Fact = dict[str, Any]
ENDING = ".facts.parquet"  # instead of ".tar"
MAX_SIZE_OF_UINT8_SUM = (2**32 - 1) // 255  # values whose sum fits uint32
MADE_FROM = b"made_from"  # metadata of the file: the shard and the class table that its facts are about
TYPES = {  # column → Arrow type; all may be null, where a fact is not defined
    "key": "string",
    "bytes": "int64",
    "sha256": "binary(32)",  # of the stored bytes
    "height": "int32",  # pixels; rows of patches; crops of token sequences
    "width": "int32",  # pixels; columns of patches; tokens
    "channels": "int32",
    "min": "double",
    "max": "double",
    "mean": "double",
    "finite": "bool",
    "num_unknown_ids": "int64",  # pixels whose class id is not in the class table of the set
    "num_captions": "int32",
    "caption_length": "int32",  # characters of the first one
    "num_words": "int32",  # of the first one
    "num_instances": "int32",
    "min_score": "double",
    "boxes_valid": "bool",  # 0 <= min <= max <= 1 on both axes
    "num_colors": "int32",  # of the largest palette
    "num_metadata": "int32",  # types with a value
    "missing": "string",  # why there is no label
}


@dataclass(frozen=True)
class FactsFile:
    """The facts of one shard: an Arrow table, with a row for each sample in the order of the tar, and the SHA-256 of it."""

    table: Any
    sha256: str

    @property
    def keys(self) -> list[str]:
        """The keys of the shard, in order."""
        keys: list[str] = self.table["key"].to_pylist()
        return keys

    @property
    def max_captions(self) -> int:
        """The largest number of captions that a sample has; 0 where there are none."""
        return max((count for count in self.table["num_captions"].to_pylist() if count), default=0)


def facts_path(shard: Any) -> Any:
    """Return the path of the facts beside a shard (a `Path` or `UPath`)."""
    return shard.with_name(shard.name.removesuffix(".tar") + ENDING)


def facts_of(modality: str, content: bytes, value: Any = None, class_table: ClassTable | None = None) -> Fact:
    """Return the facts about one stored value, those that are defined.

    Args:
        modality: its modality.
        content: the stored bytes.
        value: the value if it is known, which saves the decoding of an image. Of JPEG and WebP, smallest, largest and mean
            values are then those before compression.
        class_table: of class ids.

    Raises:
        ValueError: the bytes are damaged.
    """
    if not isinstance(value, np.ndarray) or content.startswith(codecs.NPY_MAGIC):
        value = codecs.decode(modality, content)  # as it is stored: rounded to float16, in canonical JSON
    facts = content_facts(content)
    if isinstance(value, Missing):
        return facts | {"missing": value.reason}
    is_tokens = isinstance(value, np.ndarray) and value.dtype == codecs.DTYPE_OF_TOKENS
    if is_tokens and value.size and (value == MISSING_TOKEN).all():
        return facts | {"height": value.shape[0], "width": value.shape[1], "missing": "no label"}
    if isinstance(value, np.ndarray):
        return facts | array_facts(value) | ({} if class_table is None else _class_facts(value, class_table))
    if isinstance(value, str):
        return facts | {
            "num_captions": len(captions_of(value)),
            "caption_length": len(value),
            "num_words": len(value.split()),
        }
    return facts | _json_facts(modality, value)


def content_facts(content: bytes) -> Fact:
    """Return size and SHA-256 of stored bytes."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).digest()}


def write_facts(shard: Path, facts: Sequence[Fact], sha256: str, class_table: ClassTable | None) -> FactsFile:
    """Write the facts of a shard; equal facts give equal bytes with one version of Arrow.

    Args:
        shard: path of the tar; it need not exist yet.
        facts: a row for each sample, with `key`.
        sha256: of the tar.
        class_table: that the facts were computed with.
    """
    import pyarrow as pa

    table = pa.Table.from_pylist(list(facts), _schema().with_metadata({MADE_FROM: _made_from(sha256, class_table)}))
    content = _as_parquet(table)
    with atomic_path(facts_path(shard)) as temporary:
        temporary.write_bytes(content)
    return FactsFile(table, hashlib.sha256(content).hexdigest())


def read_facts(path: Any, expected: str | None = None) -> FactsFile:
    """Return the facts in a file (a `Path` or `UPath`).

    Raises:
        ValueError: the file cannot be read, is damaged, or has another SHA-256 than `expected`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if expected is not None and sha256 != expected:
            raise ValueError(f"{path} changed after it was written: SHA-256 {sha256}, expected {expected}. {tars.AGAIN}")
        # one thread: Arrow's own threads would not survive the fork of a worker
        table = parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read: {error}. {tars.AGAIN}") from error
    if not table.schema.equals(_schema()):
        raise ValueError(f"{path} has the columns {', '.join(table.column_names)}; another version wrote it. {tars.AGAIN}")
    return FactsFile(table, sha256)


def shard_digest(path: Path) -> str | None:
    """Return the SHA-256 of the shard that a file of facts is about; None if there is no file that says so."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        made_from = (parquet.read_schema(path).metadata or {})[MADE_FROM]
        return str(json.loads(made_from)["shard"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def facts_beside(
    shard: Path,
    modality: str,
    sha256: str,
    class_table: ClassTable | None,
    read: Callable[[], bytes] | None = None,
) -> FactsFile:
    """Return the facts of a shard; if its file is missing, damaged or about something else, it is written from the shard.

    Args:
        shard: path of the tar.
        modality: of the shard.
        sha256: of the tar.
        class_table: of class ids.
        read: returns the bytes of the shard, if they are not at `shard`.

    Raises:
        ValueError: the shard holds a value that cannot be decoded; the message names the sample.
    """
    try:
        found = read_facts(facts_path(shard))
        is_about_it = (found.table.schema.metadata or {}).get(MADE_FROM) == _made_from(sha256, class_table)
        # no checksum of Parquet covers all bytes of a file, but equal facts give equal bytes
        if is_about_it and hashlib.sha256(_as_parquet(found.table)).hexdigest() == found.sha256:
            return found
    except ValueError:
        pass  # of an older version or a killed process: what counts is in the shard
    content = (read or shard.read_bytes)()
    return write_facts(shard, [*_decoded_facts(shard, content, modality, class_table)], sha256, class_table)


def _decoded_facts(shard: Path, stored: bytes, modality: str, class_table: ClassTable | None) -> Iterable[Fact]:
    for key, content in tars.members(shard, stored):
        try:
            yield {"key": key, **facts_of(modality, content, class_table=class_table)}
        except ValueError as error:
            raise ValueError(f"{shard}, sample {key!r}: {error}") from error


def _as_parquet(table: Any) -> bytes:
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _made_from(sha256: str, class_table: ClassTable | None) -> bytes:
    table = None if class_table is None else class_table.model_dump(mode="json")
    return json.dumps({"shard": sha256, "class_table": table}, sort_keys=True).encode()


@lru_cache(maxsize=1)
def _schema() -> Any:
    import pyarrow as pa

    types = {"binary(32)": pa.binary(32), "bool": pa.bool_(), "double": pa.float64()}
    return pa.schema([(name, types.get(kind) or pa.type_for_alias(kind)) for name, kind in TYPES.items()])


def _json_facts(modality: str, value: Any) -> Fact:
    kind = LABELS[modality].kind if modality in LABELS else ""
    if kind == "palette":
        return {
            "num_colors": max(map(int, value), default=0),
            **_extent(level for p in value.values() for c in p for level in c),
        }
    if kind == "metadata":
        return {"num_metadata": len(value), **_extent(value.values())}
    return _box_facts(value["instances"]) if isinstance(value, dict) and "instances" in value else {}


def _extent(values: Iterable[float]) -> Fact:
    array = np.array(list(values), float)
    if not array.size:
        return {}
    return {"min": float(array.min()), "max": float(array.max()), "finite": bool(np.isfinite(array).all())}


def array_facts(value: np.ndarray) -> Fact:
    """Return shape, extent and mean of an array."""
    if value.ndim == 1:  # a vector has one position
        shape = {"height": 1, "width": 1, "channels": len(value)}
    else:
        shape = {"height": value.shape[0], "width": value.shape[1], "channels": value.shape[2] if value.ndim > 2 else 1}
    if not value.size:
        return shape
    # Of integers, NumPy computes these exactly without a wider copy; float16 would round the sum.
    wide = value.astype(np.float64) if np.issubdtype(value.dtype, np.inexact) else value
    lowest, highest = float(wide.min()), float(wide.max())
    # NaN is both the minimum and the maximum of values with a NaN.
    finite = math.isfinite(lowest) and math.isfinite(highest)
    return shape | {"min": lowest, "max": highest, "mean": _mean(wide), "finite": finite}


def _mean(value: np.ndarray) -> float:
    if value.dtype == np.uint8 and value.size <= MAX_SIZE_OF_UINT8_SUM:  # the exact sum, in half the time of a float64 one
        return int(value.sum(dtype=np.uint32)) / value.size
    return float(value.mean())


def _class_facts(value: np.ndarray, class_table: ClassTable) -> Fact:
    allowed = [*range(class_table.num_classes), *class_table.ignored]
    if value.dtype == np.uint8:  # counting each id once is several times faster than looking up every pixel
        counts = np.bincount(value.ravel(), minlength=256)
        return {"num_unknown_ids": value.size - int(counts[[id_ for id_ in set(allowed) if 0 <= id_ < 256]].sum())}
    return {"num_unknown_ids": int((~np.isin(value, allowed)).sum())}


def _box_facts(instances: Sequence[Mapping[str, Any]]) -> Fact:
    boxes = np.array([instance["box"] for instance in instances], dtype=float).reshape(-1, 4)
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()
    scores = [float(instance["score"]) for instance in instances if "score" in instance]
    return {"num_instances": len(instances), "min_score": min(scores, default=None), "boxes_valid": bool(ordered)}
