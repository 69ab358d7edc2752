"""Commands of the project: those of Kedro, `generate`, `retrieve`, `k8s` and `submit`. A failure is reported on one line."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run

from fourfold.reuse import KEEP_VARIABLE
from fourfold_ops.cli.catalog import catalog_path, configuration
from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.cli.options import with_fresh
from fourfold_ops.kubernetes.cli.commands import add_commands, with_kubernetes

if TYPE_CHECKING:
    from fourfold.generation.any_to_any import AnyToAny
    from fourfold.modalities.class_table import ClassTable

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Commands of this project."""


@dataclass(frozen=True)
class ModelInputs:
    """The options that `generate` and `retrieve` share: which model, and its inputs by label."""

    given: dict[str, Any]  # label → path of a file, or the caption itself
    model: Path | None
    env: str | None

    @classmethod
    def from_options(
        cls, image: Path | None, caption: str | None, given: tuple[str, ...], model: Path | None, env: str | None
    ) -> "ModelInputs":
        """Return the inputs; raises UsageError if there are none, or if a `--given` is not LABEL=FILE."""
        pairs = [pair.partition("=") for pair in given]
        if wrong := [pair for pair in pairs if not pair[2]]:
            raise click.UsageError(f"--given takes LABEL=FILE, e.g. depth=depth.npy; got {''.join(wrong[0])!r}.")
        inputs: dict[str, Any] = {name: Path(path) for name, _, path in pairs}
        inputs |= ({} if image is None else {"rgb": image}) | ({} if caption is None else {"caption": caption})
        if not inputs:
            raise click.UsageError("Give --image, --caption, --given or several of these.")
        return cls(inputs, model, env)

    def load_model(self) -> "AnyToAny":
        """Load the plug-ins of conf/, then the model of `--model`, by default that of the catalog."""
        from fourfold.generation.any_to_any import AnyToAny
        from fourfold.plugins import load_plugins

        load_plugins((configuration("parameters", self.env) or {}).get("plugins") or ())
        return AnyToAny.load(self.model or catalog_path("any_to_any", self.env))

    def class_table(self) -> "ClassTable | None":
        """Return the names and colors of the classes of the catalog's model; None for `--model` and without segmentation."""
        from fourfold.data.shards import ShardSet

        if self.model is not None:  # the labels of the catalog may have other classes
            return None
        folder = catalog_path("labels", self.env)
        labels = ShardSet(folder)
        splits = labels.splits() if folder.is_dir() else []
        return next((labels.class_table(split) for split in splits if "semseg" in labels.modalities(split)), None)

    def values(self, model: "AnyToAny") -> dict[str, Any]:
        """Return the inputs by label, read and converted to the form that the model takes.

        Raises:
            ValueError: A file cannot be read or does not fit the model; the message names it.
        """
        from fourfold.data.codecs import decode
        from fourfold.generation.requests import prepare

        values: dict[str, Any] = {}
        for name, value in self.given.items():
            try:
                # an image may have any size; other files are stored as in shards
                is_stored = isinstance(value, Path) and name != "rgb"
                values[name] = prepare(model, name, decode(name, value.read_bytes()) if is_stored else value)
            except OSError as error:
                raise ValueError(f"{value} cannot be read ({error.strerror}).") from None
            except ValueError as error:
                raise ValueError(f"{value}: {error}" if isinstance(value, Path) else str(error)) from None
        return values


def with_model_inputs(command: Callable) -> Callable:
    """Add the options of `ModelInputs`; `command` gets them as its first argument."""

    @functools.wraps(command)
    def wrapped(
        image: Path | None, caption: str | None, given: tuple[str, ...], model: Path | None, env: str | None, **others: Any
    ) -> None:
        command(ModelInputs.from_options(image, caption, given, model, env), **others)

    options = (
        click.option("--image", type=FILE, help="An image."),
        click.option("--caption", help="A caption; can be combined with --image. `___` marks a gap to fill."),
        click.option("--given", multiple=True, metavar="LABEL=FILE", help="Another label, in the format of the shards."),
        click.option("--env", help="A folder of conf/ whose catalog contains the model."),
        click.option("--model", type=FOLDER, help="An any-to-any folder. [default: `any_to_any` of the catalog]"),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.command()
@with_model_inputs
@click.option("--to", "targets", required=True, help="Labels to generate, by commas: depth,normal,semseg,caption,det,clip,rgb.")
@click.option("--preset", default="greedy", show_default=True, help="A name of PRESETS in fourfold/generation/config.py.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=FOLDER, default=Path("generated"), show_default=True)
def generate(inputs: ModelInputs, targets: str, preset: str, seed: int, out: Path) -> None:
    """Generate labels from an image, a caption or other labels, as files and one contact sheet."""
    from fourfold.evaluation.report.answers import write_answers
    from fourfold.generation import generate

    names = list(dict.fromkeys(name.strip() for name in targets.split(",") if name.strip()))
    if not names:
        raise click.UsageError("--to is empty. Give labels by commas, e.g. depth,caption.")
    model = inputs.load_model()
    conditions = inputs.values(model)
    answers = generate(model, conditions, names, preset=preset, seed=seed)
    about = {"preset": preset, "seed": seed, "conditions": {name: str(value) for name, value in inputs.given.items()}}
    for path in write_answers(conditions, answers, out, about, inputs.class_table()):
        click.echo(path)


@click.command()
@with_model_inputs
@click.option("--shards", type=FOLDER, help="The images to search. [default: `shards` of the catalog]")
@click.option("--split", default="test", show_default=True)
@click.option(
    "--space",
    default="clip",
    show_default=True,
    help="A feature label that the model predicts (clip, clip_global), or encoder.",
)
@click.option("-k", "count", type=click.IntRange(1, 100), default=7, show_default=True, help="Number of neighbors.")
@click.option("--index", type=FOLDER, default=Path("retrieved/index"), show_default=True, help="Folder of the vectors.")
@click.option("--out", type=FOLDER, default=Path("retrieved"), show_default=True)
def retrieve(inputs: ModelInputs, shards: Path | None, split: str, space: str, count: int, index: Path, out: Path) -> None:
    """Find the images of a shard folder that are nearest to an image, a caption or other labels."""
    from fourfold.data.shards import ShardSet
    from fourfold.evaluation.report.answers import write_neighbors
    from fourfold.generation.retrieval import build_index, embed

    model = inputs.load_model()
    conditions = inputs.values(model)
    query = embed(model, {name: [value] for name, value in conditions.items()}, space)
    samples = ShardSet(shards or catalog_path("shards", inputs.env))
    vectors = build_index(model, samples, split, index / f"{split}-{space}", space=space)
    rows, cosines = vectors.nearest(query, count)
    ranked = {vectors.keys[row]: float(cosine) for row, cosine in zip(rows[0], cosines[0], strict=True)}
    for path in write_neighbors(conditions, ranked, samples, split, out, class_table=inputs.class_table()):
        click.echo(path)


cli.add_command(with_clear_errors(with_fresh(with_kubernetes(kedro_run), KEEP_VARIABLE)), "run")
cli.add_command(with_clear_errors(generate), "generate")
cli.add_command(with_clear_errors(retrieve), "retrieve")
add_commands(cli, kedro_run)
