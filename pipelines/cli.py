"""The project's commands: Kedro's own, `generate`, `retrieve`, `k8s` and `submit`; failures in one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run

from fourfold.reuse import KEEP_VARIABLE
from fourfold_ops.cli.catalog import catalog_path
from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.cli.options import with_fresh
from fourfold_ops.kubernetes.commands import add_commands, with_kubernetes

if TYPE_CHECKING:
    from fourfold.generation.any_to_any import AnyToAny

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Commands of this project."""


def asking(command: Callable) -> Callable:
    """Add the options that say what is known, and which model is asked."""
    options = (
        click.option("--image", type=FILE, help="An image to start from."),
        click.option("--caption", help="A caption to start from; with --image, both count. `___` is a gap."),
        click.option("--given", multiple=True, metavar="LABEL=FILE", help="Another label to start from, stored as in shards."),
        click.option("--env", help="A folder of conf/, whose catalog names the model."),
        click.option("--model", type=FOLDER, help="An any-to-any folder. [default: `any_to_any` of the catalog]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@asking
@click.option("--to", "targets", required=True, help="Labels to generate, by commas: depth,normal,semseg,caption,det,clip,rgb.")
@click.option("--preset", default="greedy", show_default=True, help="How: a name of PRESETS in fourfold/generation/config.py.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=FOLDER, default=Path("generated"), show_default=True)
def generate(
    image: Path | None,
    caption: str | None,
    given: tuple[str, ...],
    env: str | None,
    model: Path | None,
    targets: str,
    preset: str,
    seed: int,
    out: Path,
) -> None:
    """Generate any labels from an image, a caption, other labels or all of these, as files and one contact sheet."""
    from fourfold.evaluation.report.answers import write_answers
    from fourfold.generation import generate
    from fourfold.generation.any_to_any import AnyToAny

    asked = list(dict.fromkeys(name.strip() for name in targets.split(",") if name.strip()))
    if not asked:
        raise click.UsageError("--to names nothing. Give labels by commas, e.g. depth,caption.")
    found = known(image, caption, given)
    any_to_any = AnyToAny.load(model or catalog_path("any_to_any", env))
    conditions = prepared(any_to_any, found)
    answers = generate(any_to_any, conditions, asked, preset=preset, seed=seed)
    about = {"preset": preset, "seed": seed, "conditions": {name: str(value) for name, value in found.items()}}
    for path in write_answers(conditions, answers, out, about):
        click.echo(path)


@click.command()
@asking
@click.option("--shards", type=FOLDER, help="What to search in. [default: `shards` of the catalog]")
@click.option("--split", default="test", show_default=True)
@click.option(
    "--space",
    default="clip",
    show_default=True,
    help="A feature label that the model predicts (clip, clip_global), or encoder.",
)
@click.option("-k", "count", type=click.IntRange(1, 100), default=7, show_default=True, help="How many neighbors.")
@click.option("--index", type=FOLDER, default=Path("retrieved/index"), show_default=True, help="Where vectors are kept.")
@click.option("--out", type=FOLDER, default=Path("retrieved"), show_default=True)
def retrieve(
    image: Path | None,
    caption: str | None,
    given: tuple[str, ...],
    env: str | None,
    model: Path | None,
    shards: Path | None,
    split: str,
    space: str,
    count: int,
    index: Path,
    out: Path,
) -> None:
    """Find the images of a shard folder that are nearest to an image, a caption or other labels."""
    from fourfold.data.shards import ShardSet
    from fourfold.evaluation.report.answers import write_neighbors
    from fourfold.generation.any_to_any import AnyToAny
    from fourfold.generation.retrieval import build_index, embed

    found = known(image, caption, given)
    any_to_any = AnyToAny.load(model or catalog_path("any_to_any", env))
    conditions = prepared(any_to_any, found)
    query = embed(any_to_any, {name: [value] for name, value in conditions.items()}, space)
    samples = ShardSet(shards or catalog_path("shards", env))
    vectors = build_index(any_to_any, samples, split, index / f"{split}-{space}", space=space)
    places, cosines = vectors.nearest(query, count)
    ranked = {vectors.keys[place]: float(cosine) for place, cosine in zip(places[0], cosines[0], strict=True)}
    for path in write_neighbors(conditions, ranked, samples, split, out):
        click.echo(path)


def known(image: Path | None, caption: str | None, given: tuple[str, ...]) -> dict[str, Any]:
    """Return what a request starts from, by label: paths, and the caption itself."""
    pairs = [pair.partition("=") for pair in given]
    if bad := [pair for pair in pairs if not pair[2]]:
        raise click.UsageError(f"--given takes LABEL=FILE, e.g. depth=depth.npy; got {''.join(bad[0])!r}.")
    found: dict[str, Any] = {name: Path(path) for name, _, path in pairs}
    found |= ({} if image is None else {"rgb": image}) | ({} if caption is None else {"caption": caption})
    if not found:
        raise click.UsageError("Give --image, --caption, --given or several of these.")
    return found


def prepared(model: "AnyToAny", found: dict[str, Any]) -> dict[str, Any]:
    """Return the values of what a request starts from."""
    from fourfold.data.codecs import decode
    from fourfold.generation.requests import prepare

    values: dict[str, Any] = {}
    for name, value in found.items():
        try:
            of_shards = isinstance(value, Path) and name != "rgb"
            values[name] = prepare(model, name, decode(name, value.read_bytes()) if of_shards else value)
        except OSError as error:
            raise ValueError(f"{value} cannot be read ({error.strerror}).") from None
        except ValueError as error:
            raise ValueError(f"{value}: {error}" if isinstance(value, Path) else str(error)) from None
    return values


cli.add_command(with_clear_errors(with_fresh(with_kubernetes(kedro_run), KEEP_VARIABLE)), "run")
cli.add_command(with_clear_errors(generate), "generate")
cli.add_command(with_clear_errors(retrieve), "retrieve")
add_commands(cli, kedro_run)
