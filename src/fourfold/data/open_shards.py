"""Shards that are open: decoded sample by sample as they are asked for, and kept for the next epoch while there is room."""

# R rows of a shard that are asked for

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from fourfold.data import codecs
from fourfold.data.manifests import require_equal_keys
from fourfold.data.shards import ShardSet

Columns = dict[str, np.ndarray]  # modality → (samples, ...)


class OpenShard:
    """One shard of several modalities. A reader that owns a part of the samples decodes that part alone.

    `sources`: (set, modalities) pairs. Raises ValueError that names shard and key when a file is damaged or its keys are not
    those that the manifest of the first modality has.
    """

    def __init__(self, sources: Sequence[tuple[ShardSet, Sequence[str]]], split: str, name: str) -> None:
        self.keys = sources[0][0].keys_by_shard(split)[name]
        self.columns: Columns = {}
        self._where: dict[str, str] = {}
        self._waiting: dict[str, list[bytes]] = {}  # stored bytes, until every row is decoded
        self._decoded = np.zeros(len(self.keys), bool)
        for shards, modalities in sources:
            for modality in modalities:
                members = shards.read_bytes(split, modality, name)
                self._where[modality] = str(shards.root / split / modality / name)
                require_equal_keys({name: self.keys}, {name: tuple(key for key, _ in members)}, self._where[modality])
                self._waiting[modality] = [content for _, content in members]

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        decoded = sum(values.nbytes for values in self.columns.values())
        return decoded + sum(len(content) for members in self._waiting.values() for content in members)

    def take(self, rows_R: np.ndarray) -> Columns:
        """Return the values of some rows, each (R, ...)."""
        for row in rows_R[~self._decoded[rows_R]].tolist():
            for modality, members in self._waiting.items():
                self._put(modality, row, self._decode(modality, row, members[row]))
            self._decoded[row] = True
        if self._decoded.all():
            self._waiting = {}
        return {modality: values[rows_R] for modality, values in self.columns.items()}

    def _decode(self, modality: str, row: int, content: bytes) -> np.ndarray:
        try:
            value = codecs.decode(modality, content)
        except ValueError as error:
            raise ValueError(f"{self._where[modality]}, sample {self.keys[row]!r}: {error}") from error
        return np.asarray(value)

    def _put(self, modality: str, row: int, value: np.ndarray) -> None:
        if modality not in self.columns:
            self.columns[modality] = np.empty((len(self.keys), *value.shape), value.dtype)
        column = self.columns[modality]
        if value.shape != column.shape[1:] or value.dtype != column.dtype:
            raise ValueError(
                f"{self._where[modality]}, sample {self.keys[row]!r} is {value.dtype} {value.shape}, others of its shard are "
                f"{column.dtype} {column.shape[1:]}: samples differ in shape. Run its stage again."
            )
        column[row] = value


class OpenShards:
    """The shards that a reader works on now, and a cache of those it is done with, the least recently used closed first."""

    def __init__(self, opener: Callable[[str], OpenShard], cache_bytes: int) -> None:
        self.opener, self.limit, self.size = opener, cache_bytes, 0
        self.now: dict[str, OpenShard] = {}
        self.cached: OrderedDict[str, OpenShard] = OrderedDict()

    def take(self, names: Sequence[str], shard_R: np.ndarray, row_R: np.ndarray) -> Columns:
        """Return the values of R rows; `shard_R` indexes `names`: the shards at work, all others go into the cache."""
        for name in [name for name in self.now if name not in names]:
            self._put_away(name, self.now.pop(name))
        found: Columns = {}
        for shard in np.unique(shard_R).tolist():
            places = np.flatnonzero(shard_R == shard)
            for modality, values in self._open(names[shard]).take(row_R[places]).items():
                if modality not in found:
                    found[modality] = np.empty((len(row_R), *values.shape[1:]), values.dtype)
                if found[modality].shape[1:] != values.shape[1:] or found[modality].dtype != values.dtype:
                    raise ValueError(f"{modality}/{names[shard]}: samples differ in shape between shards. Run its stage again.")
                found[modality][places] = values
        return found

    def _open(self, name: str) -> OpenShard:
        if name not in self.now:
            if name in self.cached:
                self.now[name] = self.cached.pop(name)
                self.size -= self.now[name].num_bytes
            else:
                self.now[name] = self.opener(name)
        return self.now[name]

    def _put_away(self, name: str, shard: OpenShard) -> None:
        self.cached[name] = shard
        self.size += shard.num_bytes
        while self.size > self.limit:
            self.size -= self.cached.popitem(last=False)[1].num_bytes
