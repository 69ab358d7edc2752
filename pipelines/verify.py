"""`kedro verify`: compares shards with their manifests, in `data/`, a folder, or a bucket. Nothing is run or changed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fourfold_ops.errors import EXIT_DIFFERS, UserError

MANIFEST_FILE = "manifest.json"  # of fourfold.data.manifests, whose import takes a second


@click.command(
    help="""Compare every shard with the SHA-256 in its manifest, and the keys of all modalities with each other.

    PLACE is a folder or an address such as s3://bucket/tokens, or a manifest in one; by default data/. Each file is read once,
    a shard at a time. The exit code is 65 if one differs.
    """
)
@click.argument("places", nargs=-1, metavar="[PLACE]...")
def verify(places: tuple[str, ...]) -> None:  # noqa: D103  the help says it
    sets = [found for place in places or ("data",) for found in _sets(place)]
    damages = [line for found in sets for line in _report(found)]
    if damages:
        click.echo(f"{len(damages)} of the above differ. Run their stage again, or restore them with `dvc checkout --force`.")
        sys.exit(EXIT_DIFFERS)


def _sets(place: str) -> list[str]:
    """Return the roots of the shard sets in a place; raises UserError if there are none."""
    from fourfold.data.shards import ShardSet

    if place.endswith(f"/{MANIFEST_FILE}"):
        place = place.rsplit("/", 3)[0]
    if ShardSet(place).splits():
        return [place]
    root = Path(place)
    roots = {str(path.parents[2]) for path in root.rglob(f"*/*/{MANIFEST_FILE}")} if "://" not in place else set()
    found = sorted(one for one in roots if ".superseded" not in one)
    if not found:
        raise UserError(f"{place} has no shards with manifests.", "Name a folder that has some, e.g. data/03_tokens/shards.")
    return found


def _report(root: str) -> Iterator[str]:
    """Print a line for each modality of a set, and yield those that say what differs."""
    from fourfold.data.shards import ShardSet

    shards = ShardSet(root)
    for split in shards.splits():
        for modality in shards.modalities(split):
            try:
                shards.verify_modality(split, modality)
            except ValueError as error:
                click.echo(f"{root}: {error}")
                yield str(error)
                continue
            manifest = shards.manifest(split, modality)
            samples, size = (sum(getattr(one, name) for one in manifest.shards) for name in ("samples", "bytes"))
            counts = f"{samples:,} samples, {len(manifest.shards):,} shards, {size / 1e6:,.1f} MB"
            click.echo(f"{root}/{split}/{modality}: {counts}: as recorded")
