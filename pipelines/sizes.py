"""`kedro sizes`: bytes and hours for any number of images, scaled up from the shards and times of the last run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from fourfold_ops.errors import UserError
from pipelines.places import recorded_place

DATA = Path("data")
SETS = {"images": "01_raw/shards", "raw labels": "02_labels/raw", "labels": "02_labels/shards", "tokens": "03_tokens/shards"}
TIMED = {"ingest_images": ("ingestion", "images"), "label_images": ("pseudo_labeling", "raw labels")}
TIMED |= {"tokenize_shards": ("tokenizer_training", "tokens")}
KEPT = ("all", "sample", "none")  # pseudo_labeling.keep
FACTS = "facts"  # beside the shards of all modalities; they stay in data/, wherever the shards are


@dataclass(frozen=True)
class Apart:
    """Bytes of sets whose shards are in a bucket or another folder."""

    shards: float  # there, each equal shard once
    disk: float  # facts in `data/`


@dataclass(frozen=True)
class Measured:
    """Bytes a sample by set and modality, and seconds a sample by node.

    Attributes:
        bytes: bytes a sample by set, and by modality; facts beside the shards are under "facts".
        seconds: seconds a sample by node.
        repeated: by set, the share of the bytes of its shards that are shards of an earlier set, or of itself, once more.
        places: where sets keep their shards, if that is not `data/`.
    """

    bytes: dict[str, dict[str, float]]
    seconds: dict[str, float]
    repeated: dict[str, float] = field(default_factory=dict)
    places: tuple[str, ...] = ()

    def apart(self, stored: Mapping[str, float]) -> Apart:
        """Return what takes space where, if all sets keep their shards at one place.

        Args:
            stored: the bytes of each set, see `stored`.
        """
        shares = {name: found.get(FACTS, 0) / max(1, sum(found.values())) for name, found in self.bytes.items()}
        shards = {name: size * (1 - shares[name]) * (1 - self.repeated.get(name, 0)) for name, size in stored.items()}
        return Apart(sum(shards.values()), sum(size * shares[name] for name, size in stored.items()))

    def stored(self, images: int, keep: str, sample_size: int, held_out: float) -> dict[str, float]:
        """Return the bytes of each set.

        Args:
            images: number of images.
            keep: as in `pseudo_labeling.keep`.
            sample_size: training images whose labels `sample` keeps.
            held_out: share of the images that are in `val` and `test`.
        """
        training = images * (1 - held_out)
        kept = {"all": training, "sample": min(sample_size, training), "none": 0}[keep] + images * held_out
        counts = {"images": images, "raw labels": kept, "labels": kept, "tokens": images}
        return {name: counts[name] * sum(found.values()) for name, found in self.bytes.items()}


@click.command(
    help="""Print bytes and hours for a number of images, and what pseudo_labeling.keep saves.

    Both are scaled up from the shards in data/ and the times of the last run on this machine: run a small sample with the
    settings of the large run first. Stages whose results are not in data/ are left out.
    """
)
@click.option("--images", type=click.IntRange(min=1), default=12_423_374, show_default="those of CC12M")
@click.option(
    "--sample-size", type=click.IntRange(min=1), default=20_000, show_default=True, help="pseudo_labeling.sample_size."
)
@click.option("--held-out", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of val and test together.")
def sizes(images: int, sample_size: int, held_out: float) -> None:  # noqa: D103  the help says it
    for line in table(measured(DATA), images, sample_size, held_out):
        click.echo(line)


def measured(data: Path) -> Measured:
    """Return what the last run wrote and took; raises UserError if there are no shards."""
    counts, found, repeated = dict[str, int](), dict[str, dict[str, float]](), dict[str, float]()
    known = set[str]()  # SHA-256 of the shards so far
    for name, place in SETS.items():
        totals, samples, again = _totals(data / place, known)
        if samples:
            counts[name], found[name] = samples, {modality: size / samples for modality, size in totals.items()}
            repeated[name] = again / max(1, sum(totals.values()) - totals[FACTS])
    if not found:
        raise UserError(f"{data} has no shards, so nothing can be scaled up.", "Run a small sample first: kedro run.")
    path = data / "seconds.json"
    seconds: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    taken = {
        node: seconds[stage][node] / counts[name]
        for node, (stage, name) in TIMED.items()
        if name in counts and node in seconds.get(stage, {})
    }
    places = dict.fromkeys(filter(None, (recorded_place(data / place) for place in SETS.values())))
    return Measured(found, taken, repeated, tuple(places))


def _totals(root: Path, known: set[str]) -> tuple[dict[str, int], int, int]:
    """Return the bytes of each modality of a set and of all facts, the number of samples, and the bytes of known shards.

    Args:
        root: the folder of the set; its shards may be elsewhere, the manifests have their sizes.
        known: SHA-256 of shards of other sets; those of this set are added.
    """
    totals, samples, again = {FACTS: 0}, dict[str, int](), 0
    for manifest in sorted(root.glob("*/*/manifest.json")):
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        modality, split = content["modality"], manifest.parts[-3]
        facts = [manifest.with_name(shard["facts"]["name"]) for shard in content["shards"]]
        totals[FACTS] += sum(file.stat().st_size for file in facts if file.is_file())
        totals[modality] = totals.get(modality, 0) + sum(shard["bytes"] for shard in content["shards"])
        for shard in content["shards"]:
            again += shard["bytes"] if shard["sha256"] in known else 0
            known.add(shard["sha256"])
        samples[split] = sum(shard["samples"] for shard in content["shards"])
    return totals, sum(samples.values()), again


def table(found: Measured, images: int, sample_size: int, held_out: float) -> Iterator[str]:
    """Yield the lines that `kedro sizes` prints."""
    yield f"{images:,} images, from the shards in data/ and the times of the last run on this machine"
    yield ""
    for name, of_modality in found.bytes.items():
        parts = ", ".join(f"{modality} {size:,.0f}" for modality, size in of_modality.items())
        yield f"  {name:<12}{sum(of_modality.values()):>12,.0f} bytes a sample ({parts})"
    yield ""
    yield f"  {'keep':<8}{''.join(f'{name:>14}' for name in found.bytes)}{'in all':>14}"
    for keep in KEPT:
        stored = found.stored(images, keep, sample_size, held_out)
        yield f"  {keep:<8}{columns([*stored.values(), sum(stored.values())])}"
    yield ""
    if found.places:
        kept = {keep: found.apart(found.stored(images, keep, sample_size, held_out)) for keep in KEPT}
        yield from table_apart(kept, ", ".join(found.places))
        yield ""
    for node, seconds in found.seconds.items():
        again = ", with keep: sample or none while tokens are made" if node == "label_images" else ""
        yield f"  {node:<16}{seconds * 1000:>10,.2f} ms a sample{images * seconds / 3600:>12,.1f} h{again}"


def table_apart(kept: Mapping[str, Apart], place: str, chosen: str = "") -> Iterator[str]:
    """Yield lines that say how much is where, for each value of `keep`.

    Args:
        kept: by value of `keep`.
        place: where the shards are kept.
        chosen: the configured value, which gets a star.
    """
    yield f"  of these, shards at {place}, each equal one once, and facts on the disk:"
    yield f"  {'keep':<10}{'shards there':>14}{'disk':>14}"
    for keep, apart in kept.items():
        yield f"  {keep + ' *' * (keep == chosen):<10}{columns([apart.shards, apart.disk])}"


def columns(counts: Sequence[float]) -> str:
    """Return bytes as the columns of a table."""
    return "".join(f"{readable(count):>14}" for count in counts)


def readable(count: float) -> str:
    """Return a number of bytes with its unit."""
    unit = max((unit for unit in range(5) if count >= 1000**unit), default=0)
    return f"{count / 1000**unit:,.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
