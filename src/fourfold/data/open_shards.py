"""Open shards: samples are decoded when they are first read, and kept for later epochs within a memory limit."""

# R requested rows of a shard

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from fourfold.data import codecs
from fourfold.data.manifests import require_equal_keys
from fourfold.data.shards import ShardSet

Columns = dict[str, np.ndarray]  # modality → (samples, ...)


class OpenShard:
    """One shard of several modalities. Only requested samples are decoded, so a rank decodes only its own."""

    def __init__(self, sources: Sequence[tuple[ShardSet, Sequence[str]]], split: str, name: str) -> None:
        """Read the files of a shard.

        Args:
            sources: (shard set, modalities) pairs.
            split: the split.
            name: file name of the shard.

        Raises:
            ValueError: a file is damaged, or its keys differ from those of the first modality; names shard and key.
        """
        self.keys: list[str] = []
        self.columns: Columns = {}
        self._paths: dict[str, str] = {}  # by modality, for error messages
        self._encoded: dict[str, list[bytes]] = {}  # stored bytes, until every row is decoded
        for shards, modalities in sources:
            for modality in modalities:
                members = shards.read_bytes(split, modality, name)
                self._paths[modality] = str(shards.root / split / modality / name)
                self.keys = self.keys or [key for key, _ in members]
                require_equal_keys(self.keys, [key for key, _ in members], self._paths[modality])
                self._encoded[modality] = [content for _, content in members]
        self._decoded = np.zeros(len(self.keys), bool)

    @property
    def num_bytes(self) -> int:
        """Memory that the encoded and decoded samples need."""
        decoded = sum(values.nbytes for values in self.columns.values())
        return decoded + sum(len(content) for members in self._encoded.values() for content in members)

    def take(self, rows_R: np.ndarray) -> Columns:
        """Return the values of rows by modality, each (R, ...)."""
        for row in rows_R[~self._decoded[rows_R]].tolist():
            for modality, members in self._encoded.items():
                self._store(modality, row, self._decode(modality, row, members[row]))
            self._decoded[row] = True
        if self._decoded.all():
            self._encoded = {}
        return {modality: values[rows_R] for modality, values in self.columns.items()}

    def _decode(self, modality: str, row: int, content: bytes) -> np.ndarray:
        try:
            value = codecs.decode(modality, content)
        except ValueError as error:
            raise ValueError(f"{self._paths[modality]}, sample {self.keys[row]!r}: {error}") from error
        return np.asarray(value)

    def _store(self, modality: str, row: int, value: np.ndarray) -> None:
        if modality not in self.columns:
            self.columns[modality] = np.empty((len(self.keys), *value.shape), value.dtype)
        column = self.columns[modality]
        if value.shape != column.shape[1:] or value.dtype != column.dtype:
            raise ValueError(
                f"{self._paths[modality]}, sample {self.keys[row]!r} is {value.dtype} {value.shape}, the others of its "
                f"shard are {column.dtype} {column.shape[1:]}: samples differ in shape. Run its stage again."
            )
        column[row] = value


class OpenShards:
    """The active shards of a reader, and an LRU cache of the others."""

    def __init__(self, opener: Callable[[str], OpenShard], cache_bytes: int) -> None:
        """Create an empty cache.

        Args:
            opener: opens a shard by name.
            cache_bytes: memory limit of the shards that are not active.
        """
        self.opener, self.limit, self.size = opener, cache_bytes, 0
        self.active: dict[str, OpenShard] = {}
        self.cached: OrderedDict[str, OpenShard] = OrderedDict()  # least recently used first

    def take(self, names: Sequence[str], shard_R: np.ndarray, row_R: np.ndarray) -> Columns:
        """Return the values of R rows by modality, each (R, ...).

        Args:
            names: the active shards; all others move to the cache.
            shard_R: index into `names` of each row.
            row_R: index of each row in its shard.
        """
        for name in [name for name in self.active if name not in names]:
            self._to_cache(name, self.active.pop(name))
        columns: Columns = {}
        for shard in np.unique(shard_R).tolist():
            positions = np.flatnonzero(shard_R == shard)
            for modality, values in self._open(names[shard]).take(row_R[positions]).items():
                if modality not in columns:
                    columns[modality] = np.empty((len(row_R), *values.shape[1:]), values.dtype)
                if columns[modality].shape[1:] != values.shape[1:] or columns[modality].dtype != values.dtype:
                    raise ValueError(f"{modality}/{names[shard]}: samples differ in shape between shards. Run its stage again.")
                columns[modality][positions] = values
        return columns

    def _open(self, name: str) -> OpenShard:
        if name not in self.active:
            if name in self.cached:
                self.active[name] = self.cached.pop(name)
                self.size -= self.active[name].num_bytes
            else:
                self.active[name] = self.opener(name)
        return self.active[name]

    def _to_cache(self, name: str, shard: OpenShard) -> None:
        self.cached[name] = shard
        self.size += shard.num_bytes
        while self.size > self.limit:
            self.size -= self.cached.popitem(last=False)[1].num_bytes
