"""Tables of facts about shard sets, for validations: a row for each shard, and rows of samples, as many as fit memory.

Both read the Parquet files beside the shards, one at a time.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.distinct import TextSet
from fourfold.data.facts import TYPES, Fact
from fourfold.data.shards import ShardSet

MAX_ROWS = 10_000  # of samples; Great Expectations needs 3 kB and 0.3 ms for each
PLACE = ("key", "split", "shard", "position", "modality")  # position: of the sample in its split, from 0
COLUMNS = (*PLACE, *(name for name in TYPES if name != "key"))
RANGES = (  # columns whose smallest and largest values are reported for each shard
    *("bytes", "height", "width", "channels", "min", "max", "mean", "num_captions", "caption_length", "num_words"),
    *("num_instances", "min_score", "num_colors", "num_metadata"),
)
SHARD_COLUMNS = (
    *("shard", "split", "modality", "samples"),
    *(f"{end}_{name}" for name in RANGES for end in ("smallest", "largest")),
    "num_unknown_ids",  # pixels
    "not_finite",  # samples, as all below
    "invalid_boxes",
    "not_square",
    "repeated_keys",  # that an earlier shard of the split, or the same, has
    "first_repeated_key",
)


def fact_table(
    shards: ShardSet,
    splits: Iterable[str] | None = None,
    modalities: Iterable[str] | None = None,
    max_rows: int = MAX_ROWS,
) -> list[Fact]:
    """Return rows of `COLUMNS` about samples, one for each modality, in the order of the shards; None where one is undefined.

    A set with more than about `max_rows` rows gives a selection: every n-th sample, and for each split and modality the samples
    with the smallest and the largest value of each of `RANGES`, `num_unknown_ids`, `finite` and `boxes_valid`. Limits of these
    columns hold for all rows if they hold for the selection.

    Args:
        shards: the set; only the facts beside its shards are read.
        splits: default: all.
        modalities: default: all modalities of each split, without annotations.
        max_rows: see above.

    Raises:
        ValueError: facts are missing or damaged, or a split does not exist.
    """
    groups = _groups(shards, splits, modalities)
    total = sum(shards.num_samples(split) for split, _ in groups)
    step = -(-total // max_rows)
    rows: list[Fact] = []
    for split, modality in groups:
        chosen = {row["position"]: row for row in _rows(shards, split, modality, step)}
        if step > 1:
            chosen |= {row["position"]: row for row in _extreme_rows(shards, split, modality)}
        rows += [chosen[position] for position in sorted(chosen)]
    return rows


def shard_table(shards: ShardSet, splits: Iterable[str] | None = None, modalities: Iterable[str] | None = None) -> Any:
    """Return an Arrow table of `SHARD_COLUMNS` with a row for each shard of each modality; see `fact_table`."""
    import pyarrow as pa

    tables, repeated = [], dict[str, dict[str, list[str]]]()
    for split, modality in _groups(shards, splits, modalities):
        if split not in repeated:
            repeated[split] = _repeated_keys(shards, split)
        rows = []
        for name in shards.shard_names(split):
            keys = repeated[split].get(name, [])
            own: dict[str, Any] = {"shard": f"{split}/{modality}/{name}", "split": split, "modality": modality}
            own |= {"repeated_keys": len(keys), "first_repeated_key": next(iter(keys), None)}
            rows.append(own | _totals(shards.facts(split, modality, name).table))
        tables.append(pa.Table.from_pylist(rows, _shard_schema()))
    return pa.concat_tables(tables) if tables else _shard_schema().empty_table()


def _groups(shards: ShardSet, splits: Iterable[str] | None, modalities: Iterable[str] | None) -> list[tuple[str, str]]:
    chosen = None if modalities is None else list(modalities)
    return [
        (split, modality)
        for split in (shards.splits() if splits is None else splits)
        for modality in ([m for m in shards.modalities(split) if m != ANNOTATIONS] if chosen is None else chosen)
    ]


def _rows(shards: ShardSet, split: str, modality: str, step: int) -> Iterator[Fact]:
    """Yield every `step`-th row of a modality."""
    for name, first, table in _tables(shards, split, modality):
        start = -first % step
        yield from _placed(table, range(start, table.num_rows, step), split, modality, (name, first))


def _extreme_rows(shards: ShardSet, split: str, modality: str) -> Iterator[Fact]:
    """Yield the rows with the smallest and the largest value of each column, the first ones of equal values."""
    import pyarrow.compute as pc

    best: dict[tuple[str, bool], tuple[Any, Fact]] = {}
    for name, first, table in _tables(shards, split, modality):
        for column in (*RANGES, "num_unknown_ids", "finite", "boxes_valid"):
            extent = pc.min_max(table[column]).as_py()
            for is_max, value in ((False, extent["min"]), (True, extent["max"])):
                known = best.get((column, is_max))
                if value is None or (known and not (value > known[0] if is_max else value < known[0])):
                    continue
                row = pc.index(table[column], value).as_py()
                if row >= 0:
                    (fact,) = _placed(table, [row], split, modality, (name, first))
                    best[column, is_max] = value, fact
    yield from (fact for _, fact in best.values())


def _tables(shards: ShardSet, split: str, modality: str) -> Iterator[tuple[str, int, Any]]:
    """Yield the name of each shard, the position of its first sample in the split, and its facts."""
    counts = shards.samples_by_shard(split)
    starts = [0]
    for count in counts.values():
        starts.append(starts[-1] + count)
    for name, (first, _) in zip(counts, pairwise(starts), strict=True):
        yield name, first, shards.facts(split, modality, name).table


def _placed(table: Any, rows: Sequence[int], split: str, modality: str, shard: tuple[str, int]) -> Iterator[Fact]:
    """Yield rows of the facts of a shard as rows of `COLUMNS`; `shard` is its name and the position of its first sample."""
    name, first = shard
    for row, fact in zip(rows, table.take(list(rows)).to_pylist(), strict=True):
        place = {"key": fact["key"], "split": split, "shard": name, "position": first + row, "modality": modality}
        yield {**place, **{column: fact[column] for column in COLUMNS[len(PLACE) :]}, "sha256": fact["sha256"].hex()}


def _totals(table: Any) -> Fact:
    """Return what `shard_table` says about one shard."""
    import pyarrow.compute as pc

    totals: Fact = {"samples": table.num_rows, "num_unknown_ids": pc.sum(table["num_unknown_ids"]).as_py()}
    for name in RANGES:
        extent = pc.min_max(table[name]).as_py()
        totals |= {f"smallest_{name}": extent["min"], f"largest_{name}": extent["max"]}
    for name, column in (("not_finite", "finite"), ("invalid_boxes", "boxes_valid")):
        totals[name] = _count(pc.invert(table[column]))
    totals["not_square"] = _count(pc.not_equal(table["height"], table["width"]))
    return totals


def _count(flags: Any) -> int:
    import pyarrow.compute as pc

    return pc.sum(flags).as_py() or 0


def _repeated_keys(shards: ShardSet, split: str) -> dict[str, list[str]]:
    """Return, by shard, the keys that occur before in the split; all its modalities have the same keys."""
    seen = TextSet(Path(tempfile.gettempdir()))
    found = ((name, seen.repeated(shards.shard_keys(split, name))) for name in shards.shard_names(split))
    return {name: keys for name, keys in found if keys}


@lru_cache(maxsize=1)
def _shard_schema() -> Any:
    import pyarrow as pa

    texts = ("shard", "split", "modality", "first_repeated_key")
    kinds = {name: TYPES[name] for name in RANGES}
    types: dict[str, Any] = {name: pa.string() for name in texts}
    for name, kind in kinds.items():
        arrow = pa.float64() if kind == "double" else pa.int64()
        types |= {f"{end}_{name}": arrow for end in ("smallest", "largest")}
    return pa.schema([(name, types.get(name, pa.int64())) for name in SHARD_COLUMNS])
