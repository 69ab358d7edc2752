"""What the configured data takes on disk, for `kedro plan`: images, labels and tokens, without a library of a stage.

What shards in `data/` show is measured: those of the same image size, storage, labelers and tokens as configured. Everything
else is arithmetic on sizes of arrays, without compression.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from fourfold.data.ingestion.sources import SOURCES, AnySourceConfig
from fourfold.data.shards import ShardSet
from fourfold.modalities import LABELS, target_of
from fourfold.reuse import FINGERPRINT_FILE, read_fingerprint
from fourfold_ops.errors import UserError
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.project import Storage
from fourfold_ops.planning.records import read_records, record_of_lock
from pipelines.places import is_on_disk_of, shards_place
from pipelines.sizes import FACTS, KEPT, SETS, Measured, columns, measured, readable, table_apart

DATA, CACHE = "data", ".dvc"
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training")  # that write the sets
# Defaults of the settings that count, so that no library is loaded to find them (compared with them in tests)
IMAGE_SIZE, SHARE, GRID, NUM_CROPS = 64, 0.05, (8, 8), 1
KEEP, SAMPLE_SIZE, FORMAT = "all", 20_000, "png"
UNKNOWN = 1_000_000  # images that are shown if nobody knows how many there are
SCENES = 12_600  # of all splits
SCENES_TRAIN = 8_000
REPEATED = {"labels": 1.0}  # combining labels leaves nearly all of them as they are; measured where there are shards
# Bytes of a pixel of a photograph; img2dataset at 256 pixels: 29.9 kB as JPEG and 23.8 as WebP at quality 95, 98 to 188 as PNG
IMAGE_BYTES = {"png": 2.2, "jpeg": 0.46, "webp": 0.37}
PIXEL_BYTES = {"image": 3, "depth": 2, "normals": 3, "classes": 1, "edges": 1}  # of a label, by its kind
FEATURE_WIDTH = 512  # where the modality leaves it to the labeler; float16
TEXT_BYTES = 1_000  # of boxes, captions and the like, at most as a rule
SEQUENCE_TOKENS = 256
BLOCK, NPY_HEADER, TOKEN_BYTES, FACTS_BYTES = 512, 128, 2, 250  # of a tar; of an array; int16; of a sample beside a shard


@dataclass(frozen=True)
class Configured:
    """The settings on which sizes depend, with defaults for those that are not given."""

    image_size: int
    format: str
    storage: Mapping[str, Any]  # as given
    labelers: Mapping[str, Any]  # those that are not null, as given
    grid: tuple[int, int]
    num_crops: int
    keep: str
    sample_size: int
    held_out: float  # share of the images that are not trained on

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Configured":
        """Return those of the parameters of `conf/`."""
        ingestion, labeling, tokenizers = (_section(parameters, name) for name in STAGES)
        labelers = _section(labeling, "labelers")
        storage = _section(ingestion, "storage")
        return cls(
            image_size=int(ingestion.get("image_size", IMAGE_SIZE)),
            format=str(storage.get("format", FORMAT)),
            storage=storage,
            labelers={name: labeler for name, labeler in labelers.items() if labeler is not None},
            grid=tuple(tokenizers.get("grid", GRID)),
            num_crops=int(_section(tokenizers, "crops").get("num_crops", NUM_CROPS)),
            keep=keep if (keep := str(labeling.get("keep", KEEP))) in KEPT else KEEP,  # another value is refused elsewhere
            sample_size=int(labeling.get("sample_size", SAMPLE_SIZE)),
            held_out=_held_out(ingestion),
        )

    def computed(self) -> dict[str, dict[str, float]]:
        """Return bytes of a sample by set and modality, by arithmetic; modalities of plug-ins are left out."""
        pixels, known = self.image_size**2, [name for name in self.labelers if name in LABELS]
        image = _member(IMAGE_BYTES.get(self.format, IMAGE_BYTES["png"]) * pixels)
        labels = {name: self._label_bytes(name) for name in known}
        tokens = {target_of(name).name: self._token_bytes(name) for name in ("rgb", "caption", *known)}
        images = {"rgb": image, "caption": _member(TEXT_BYTES)}
        sets = dict(zip(SETS, (images, labels, labels, tokens), strict=True))
        return {name: {**of_modality, FACTS: FACTS_BYTES} for name, of_modality in sets.items() if of_modality}

    def _label_bytes(self, name: str) -> int:
        label, pixels = LABELS[name], self.image_size**2
        if label.kind in ("features", "vector"):
            cells = math.prod(self.grid) if label.kind == "features" else 1
            return _member(NPY_HEADER + 2 * cells * (label.channels or FEATURE_WIDTH))
        return _member(NPY_HEADER + PIXEL_BYTES[label.kind] * pixels if label.kind in PIXEL_BYTES else TEXT_BYTES)

    def _token_bytes(self, name: str) -> int:
        target, kind = target_of(name), LABELS[name].kind
        grid = target.released_grid if kind == "vector" else self.grid
        is_grid = target.kind == "grid" and grid is not None
        tokens = math.prod(grid) * self.num_crops if is_grid and grid else SEQUENCE_TOKENS
        return _member(NPY_HEADER + TOKEN_BYTES * tokens)


def find_storage(root: Path, parameters: Mapping[str, Any], catalog: Mapping[str, Any] = MappingProxyType({})) -> Storage:
    """Return what the configured data takes on disk and in a bucket; for a million images if their number cannot be told.

    Args:
        root: the project.
        parameters: all parameters, as `conf/` gives them.
        catalog: the configuration of the catalog, which says where shards are kept.
    """
    counted, configured = count_images(root, parameters), Configured.of(parameters)
    images = counted or UNKNOWN
    # 1) Bytes of each set for each value of `keep`; DVC keeps a copy in its cache
    sizes, of_data = sample_bytes(root, parameters, configured)
    copies, place = 2 if (root / CACHE).is_dir() else 1, shards_place(catalog)
    stored = {keep: sizes.stored(images, keep, configured.sample_size, configured.held_out) for keep in KEPT}
    apart = {keep: sizes.apart(of_set) for keep, of_set in stored.items()}
    # 2) Of shards at another place only the facts are on the disk of the project, and what ingestion stages until it is in
    # shards; or one copy, if the place is on this disk, too
    totals = {keep: round(copies * sum(of_set.values())) for keep, of_set in stored.items()}
    if place:
        is_here, staged = is_on_disk_of(place, root), stored[configured.keep]["images"]
        totals = {keep: round(copies * one.disk + max(staged, is_here * one.shards)) for keep, one in apart.items()}
    # 3) In words and as values
    about = f"about {images:,} images" if counted else f"for each {images:,} images, as their number is not known yet,"
    head = f"Storage of the configured data, {about} of {configured.image_size} pixels ({_origin(of_data)}):"
    smaller = [keep for keep in KEPT[KEPT.index(configured.keep) + 1 :] if totals[keep] < 0.9 * totals[configured.keep]]
    advice = f"With pseudo_labeling.keep: {smaller[-1]} it is {readable(totals[smaller[-1]])}." if smaller else ""
    values: dict[str, Any] = {"images": counted, "bytes_for_images": images, "measured": sorted(of_data), "bytes": stored}
    lines = [head, *_table(stored, configured.keep, copies)]
    if place:
        lines += table_apart(apart, place, configured.keep)
        values |= {"place": place, "apart": {keep: asdict(one) for keep, one in apart.items()}}
    return Storage(tuple(lines), totals[configured.keep] if counted else 0, STAGES, advice, values)


def _table(stored: Mapping[str, Mapping[str, float]], chosen: str, copies: int) -> Iterator[str]:
    """Yield the lines of the table; the configured value of `keep` has a star."""
    yield f"  {'keep':<10}{''.join(f'{name:>14}' for name in stored[chosen])}{'in all':>14}"
    for keep, of_set in stored.items():
        yield f"  {keep + ' *' * (keep == chosen):<10}{columns([*of_set.values(), sum(of_set.values())])}"
    yield f"  * pseudo_labeling.keep as configured{'; DVC keeps a copy of each in its cache' if copies > 1 else ''}"


def count_images(root: Path, parameters: Mapping[str, Any]) -> int | None:
    """Return about how many images the source has; None if it cannot tell or cannot be opened."""
    ingestion = _section(parameters, "ingestion")
    found = [_estimate(_section(ingestion, name)) for name in ("source", "supplement") if ingestion.get(name)]
    known = [count for count in found if count is not None]
    if known and len(known) == len(found):
        return sum(known)
    record = _records(root, parameters).get("ingestion", {})  # ingested already?
    is_same = all(record.get(name) == ingestion.get(name) for name in ("source", "supplement"))
    shards = ShardSet(root / DATA / SETS["images"])
    return sum(map(shards.num_samples, shards.splits())) if record and is_same else None


def sample_bytes(root: Path, parameters: Mapping[str, Any], configured: Configured) -> tuple[Measured, frozenset[str]]:
    """Return bytes of a sample by set and modality, and the names of the sets that were measured on shards of `data/`."""
    computed, usable = configured.computed(), _usable(root, parameters, configured)
    try:
        shards = measured(root / DATA) if usable else Measured({}, {})
    except (UserError, OSError, ValueError, KeyError):  # no shards, or not of this version
        shards = Measured({}, {})
    known = usable & shards.bytes.keys()
    found = {name: shards.bytes[name] if name in known else one for name, one in computed.items()}
    repeated = {name: (shards.repeated if name in known else REPEATED).get(name, 0.0) for name in computed}
    return Measured(found, {}, repeated), frozenset(known)


def _usable(root: Path, parameters: Mapping[str, Any], configured: Configured) -> set[str]:
    """Return the names of the sets in `data/` that were made with the settings on which sizes depend."""
    made = read_fingerprint(root / DATA / SETS["images"] / FINGERPRINT_FILE)
    ingested = _section(made.get("parameters", {}), "config")
    records, ingestion = _records(root, parameters), _section(parameters, "ingestion")
    before = records.get("ingestion", {})
    kinds = [_section(one, "source").get("kind") for one in (before, ingestion)]
    if ingested.get("image_size") != configured.image_size or kinds[0] != kinds[1]:
        return set()
    if _section(before, "storage") != configured.storage:
        return set()
    usable = {"images"}
    labelers = _section(records.get("pseudo_labeling", {}), "labelers")
    labeled = read_fingerprint(root / DATA / SETS["raw labels"] / FINGERPRINT_FILE)
    if {name: one for name, one in labelers.items() if one is not None} != configured.labelers or not labeled:
        return usable
    if _section(labeled, "inputs").get("shards") != ShardSet(root / DATA / SETS["images"]).digest():
        return usable  # of other images
    usable |= {"raw labels", "labels"}
    tokenizers = records.get("tokenizer_training", {})
    grid, crops = tokenizers.get("grid", GRID), _section(tokenizers, "crops").get("num_crops", NUM_CROPS)
    return usable | {"tokens"} if (tuple(grid), crops) == (configured.grid, configured.num_crops) else usable


def _records(root: Path, parameters: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the section of each stage as it was when its results were made, by its name."""
    written, found = read_records(root / DATA), dict[str, Mapping[str, Any]]()
    for stage in read_stages(root):
        if stage.name in STAGES:
            records = written.get(stage.name) or [one for one in [record_of_lock(root, stage)] if one]
            found |= {stage.name: _section(records[0].parameters, stage.name)} if records else {}
    return found


def _estimate(source: Mapping[str, Any]) -> int | None:
    """Return about how many samples a source has, within seconds; None if it cannot tell."""
    if source.get("kind") in SOURCES:
        try:
            config = TypeAdapter[Any](AnySourceConfig).validate_python(dict(source))
            return SOURCES.get(config.kind).estimate(config)
        except (ValueError, OSError):  # reported as a problem of the run
            return None
    counts = source.get("num_samples")  # of a source that renders its samples: its plug-in is not loaded
    if isinstance(counts, Mapping):
        return sum(counts.values())
    return SCENES if source.get("kind") == "scenes" else None


def _held_out(ingestion: Mapping[str, Any]) -> float:
    source = _section(ingestion, "source")
    counts = _section(source, "num_samples")
    if counts and sum(counts.values()):
        return 1 - counts.get("train", 0) / sum(counts.values())
    if source.get("kind") == "scenes":
        return 1 - SCENES_TRAIN / SCENES
    return float(ingestion.get("val_share", SHARE)) + float(ingestion.get("test_share", SHARE))


def _origin(of_data: frozenset[str]) -> str:
    """Return in words which sizes are measured."""
    known = [name for name in SETS if name in of_data]
    if not known:
        return "by sizes of arrays, without compression"
    return f"measured on data/: {', '.join(known)}" + ("; others by sizes of arrays" if len(known) < len(SETS) else "")


def _member(content: float) -> int:
    """Return the bytes of a member of a tar: a header, and its content in blocks."""
    return BLOCK + BLOCK * math.ceil(content / BLOCK)


def _section(values: Any, name: str) -> dict[str, Any]:
    found = values.get(name) if isinstance(values, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}
