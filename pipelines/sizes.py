"""`kedro sizes`: bytes and hours for any number of images, scaled up from the shards and times of the last run."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fourfold_ops.errors import UserError

DATA = Path("data")
SETS = {"images": "01_raw/shards", "raw labels": "02_labels/raw", "labels": "02_labels/shards", "tokens": "03_tokens/shards"}
TIMED = {"ingest_images": ("ingestion", "images"), "label_images": ("pseudo_labeling", "raw labels")}
TIMED |= {"tokenize_shards": ("tokenizer_training", "tokens")}
KEPT = ("all", "sample", "none")  # pseudo_labeling.keep


@dataclass(frozen=True)
class Measured:
    """Bytes a sample by set and modality, and seconds a sample by node."""

    bytes: dict[str, dict[str, float]]
    seconds: dict[str, float]

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
    counts, found = dict[str, int](), dict[str, dict[str, float]]()
    for name, place in SETS.items():
        totals, samples = _totals(data / place)
        if samples:
            counts[name], found[name] = samples, {modality: size / samples for modality, size in totals.items()}
    if not found:
        raise UserError(f"{data} has no shards, so nothing can be scaled up.", "Run a small sample first: kedro run.")
    path = data / "seconds.json"
    seconds: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    taken = {
        node: seconds[stage][node] / counts[name]
        for node, (stage, name) in TIMED.items()
        if name in counts and node in seconds.get(stage, {})
    }
    return Measured(found, taken)


def _totals(root: Path) -> tuple[dict[str, int], int]:
    """Return the bytes of each modality of a set with the facts beside the shards, and the number of samples."""
    totals, samples = dict[str, int](), dict[str, int]()
    for manifest in sorted(root.glob("*/*/manifest.json")):
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        modality, split = content["modality"], manifest.parts[-3]
        files = [manifest.with_name(one["name"]) for shard in content["shards"] for one in (shard, shard["facts"])]
        totals[modality] = totals.get(modality, 0) + sum(file.stat().st_size for file in files if file.is_file())
        samples[split] = sum(shard["samples"] for shard in content["shards"])
    return totals, sum(samples.values())


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
    for node, seconds in found.seconds.items():
        again = ", with keep: sample or none while tokens are made" if node == "label_images" else ""
        yield f"  {node:<16}{seconds * 1000:>10,.2f} ms a sample{images * seconds / 3600:>12,.1f} h{again}"


def columns(counts: Sequence[float]) -> str:
    """Return bytes as the columns of a table."""
    return "".join(f"{readable(count):>14}" for count in counts)


def readable(count: float) -> str:
    """Return a number of bytes with its unit."""
    unit = max((unit for unit in range(5) if count >= 1000**unit), default=0)
    return f"{count / 1000**unit:,.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
