"""Commands of the project: those of Kedro and its own, such as `generate`, `models` and `reproduce`. A failure is one line."""

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
from fourfold_ops.cli.models import add_models
from fourfold_ops.cli.options import with_fresh, with_offline_tracking, with_push
from fourfold_ops.cli.plan import Planned, plan_command, with_plan
from fourfold_ops.cli.tracking import tracking
from fourfold_ops.kubernetes.cli.commands import add_commands, with_kubernetes
from fourfold_ops.kubernetes.manifests.driver_job import RUNNER
from fourfold_ops.reproduction.command import reproduce_command
from fourfold_ops.server.command import serve
from fourfold_ops.server.demo_command import demo_command
from pipelines.bench import bench, with_benchmarks
from pipelines.frames import VIEWS, FrameRequest, write_frames
from pipelines.sizes import sizes
from pipelines.verify import verify

if TYPE_CHECKING:
    from fourfold.generation.any_to_any import AnyToAny
    from fourfold.modalities.class_table import ClassTable

JOBS = {RUNNER: "fourfold_ops.kubernetes.cli.planned_commands.job_lines"}
PLANNED = Planned("pipelines.planning.PROJECT", JOBS, is_skipped_if_unchanged=True)
# What the stages that an imported model skips would have written → nothing
OF_TRAINING: dict[str, Any] = {
    "tokenizer_metrics": {},
    "tokenizer_history": {},
    "pretraining_metrics": {},
    "pretraining_history": [],
}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
INPUT = click.Path(exists=True, path_type=Path)
MASK_THRESHOLD = 127  # of a gray value; brighter is white
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

    def folder(self, mask: Path | None) -> Path | None:
        """Return the folder that `--image` names, if it is one; raises UsageError for options that do not go with it."""
        image = self.given.get("rgb")
        if not isinstance(image, Path) or not image.is_dir():
            return None
        if mask or self.given.keys() - {"rgb", "caption"}:
            raise click.UsageError("A folder as --image goes with --caption only. Give one image for --mask and --given.")
        return image

    def filled(self, model: "AnyToAny", name: str, value: Any, mask: Path, others: dict[str, Any], **options: Any) -> Any:
        """Return `value` with the white part of a mask generated again; raises ValueError if the mask cannot be read."""
        from fourfold.generation.filling import fill
        from fourfold.generation.requests import as_image

        if not hasattr(value, "shape") or value.shape[0] != value.shape[1]:
            raise ValueError(f"{name!r} is not a square image or map, so no part of it can be masked. Crop it first.")
        try:
            white_HW = as_image(mask, value.shape[0]).max(axis=2) > MASK_THRESHOLD
        except ValueError as error:
            raise ValueError(f"{mask}: {error}") from None
        return fill(model, name, value, white_HW, others, **options)

    def load_model(self) -> "AnyToAny":
        """Load the plug-ins of conf/, then the model of `--model`, by default that of the catalog."""
        from fourfold.generation.any_to_any import AnyToAny
        from fourfold.generation.released import is_released
        from fourfold.plugins import load_plugins
        from pipelines.demo import notice

        load_plugins((configuration("parameters", self.env) or {}).get("plugins") or ())
        folder = self.model or catalog_path("any_to_any", self.env)
        model = AnyToAny.from_released(folder) if is_released(folder) else AnyToAny.load(folder)
        if text := notice(self.env):
            click.echo(text, err=True)
        return model

    def class_table(self) -> "ClassTable | None":
        """Return the names and colors of the classes of the catalog's model; None for `--model` and without segmentation."""
        from pipelines.demo import class_table

        return class_table(self.env) if self.model is None else None  # the labels of the catalog may have other classes

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
                raise ValueError(f"{value} cannot be read ({error.strerror}). Check the path and its permissions.") from None
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
        click.option("--image", type=INPUT, help="An image; for `generate` also a folder."),
        click.option("--caption", help="A caption; can be combined with --image. `___` marks a gap to fill."),
        click.option("--given", multiple=True, metavar="LABEL=FILE", help="Another label, in the format of the shards."),
        click.option("--env", help="A folder of conf/ whose catalog contains the model."),
        click.option(
            "--model", type=FOLDER, help="An any-to-any folder, or one with released 4M files. [default: that of the catalog]"
        ),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.command()
@with_model_inputs
@click.option("--to", "targets", required=True, help="Labels to generate, by commas: depth,normal,semseg,caption,det,clip,rgb.")
@click.option("--preset", default="greedy", show_default=True, help="A name of PRESETS in fourfold/generation/config.py.")
@click.option("--seed", default=0, show_default=True)
@click.option("--mask", type=FILE, help="Fill in: an image that is white where --to is generated again; the rest is kept.")
@click.option("--view", type=click.Choice(VIEWS), help="Answer frames in their shape and size: how the model sees them.")
@click.option("--budget", type=float, metavar="MS", help="Milliseconds for a frame; counts those that are late. Sets --view.")
@click.option("--out", type=FOLDER, default=Path("generated"), show_default=True)
def generate(
    inputs: ModelInputs,
    targets: str,
    preset: str,
    seed: int,
    mask: Path | None,
    *,
    view: str | None,
    budget: float | None,
    out: Path,
) -> None:
    """Generate labels from an image, a caption or other labels, as files and one contact sheet.

    With --image FOLDER, all images below it are answered, with a line in metadata.jsonl and files of the same name. With
    --view or --budget, they are frames of a camera, and --given depth=FOLDER may have LiDAR depth (docs/guides/driving.md).
    """
    from fourfold.evaluation.report.answers import write_answers
    from fourfold.evaluation.report.folder_answers import FolderRequest, answer_folder
    from fourfold.generation import generate

    names = list(dict.fromkeys(name.strip() for name in targets.split(",") if name.strip()))
    if not names:
        raise click.UsageError("--to is empty. Give labels by commas, e.g. depth,caption.")
    frames = FrameRequest(names, view, preset, seed, budget)
    if frames.is_wanted:
        write_frames(inputs, frames, mask, out)
        return
    images = inputs.folder(mask)
    if mask and (len(names) > 1 or names[0] not in inputs.given):
        raise click.UsageError("--mask needs one label in --to, and its value: --image for rgb, --given for others.")
    model = inputs.load_model()
    if images:
        request = FolderRequest(names, preset, seed, inputs.given.get("caption"))
        for reason, count in answer_folder(model, images, out, request).items():
            click.echo(f"{count:,} {reason}")
        return
    conditions = inputs.values(model)
    if mask:
        others = {name: value for name, value in conditions.items() if name != names[0]}
        answers = {names[0]: inputs.filled(model, names[0], conditions[names[0]], mask, others, preset=preset, seed=seed)}
    else:
        answers = generate(model, conditions, names, preset=preset, seed=seed)
    about = {"preset": preset, "seed": seed, "model": model.digest(), "targets": names}
    about |= {"conditions": {name: str(value) for name, value in inputs.given.items()}}
    for path in write_answers(conditions, answers, out, about, inputs.class_table(), is_part=mask is not None):
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


@click.command()
@click.argument("source", type=FOLDER)
@click.option("--out", type=FOLDER, help="The any-to-any folder to write. It must not exist. [default: the project's model]")
@click.option("--env", help="A folder of conf/ whose catalog names the model of the project.")
def import_released(source: Path, out: Path | None, env: str | None) -> None:
    """Convert a folder of released 4M files: a transformer, tokenizers and the text tokenizer.

    Without --out it becomes the model of the project, for `kedro run --pipelines=finetuning,evaluation`.
    """
    from fourfold.generation.any_to_any import PROVENANCE_FILE, AnyToAny
    from fourfold.storage import new_folder
    from fourfold_ops.datasets import JsonDataset

    is_model_of_project, out = out is None, out or catalog_path("any_to_any", env)
    model = AnyToAny.from_released(source)
    assert model.provenance is not None
    with new_folder(out) as temporary:
        model.save(temporary)
    click.echo(f"{out}: {len(model.model.config.names)} modalities, tokenizers of {', '.join(sorted(model.tokenizers.visual))}")
    click.echo(f"License of the weights: {model.provenance['license']} ({out / PROVENANCE_FILE})")
    for name, nothing in OF_TRAINING.items() if is_model_of_project else ():
        path = catalog_path(name, env)
        if not path.is_file():  # evaluation reads these, and DVC their folders
            JsonDataset(str(path)).save(nothing)


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The folder of released files to write. It must not exist.")
def export_released(model: Path, out: Path) -> None:
    """Write an imported any-to-any folder as released 4M files again."""
    from fourfold.generation.any_to_any import AnyToAny
    from fourfold.storage import new_folder

    with new_folder(out) as temporary:
        files = AnyToAny.load(model).export_released(temporary)
    for path in files:
        click.echo(out / path.relative_to(temporary))


planned_run = with_plan(with_push(with_fresh(with_kubernetes(kedro_run), KEEP_VARIABLE)), PLANNED)
cli.add_command(with_clear_errors(with_benchmarks(with_offline_tracking(planned_run))), "run")
cli.add_command(bench)
cli.add_command(with_clear_errors(plan_command(kedro_run, PLANNED)), "plan")
cli.add_command(with_clear_errors(generate), "generate")
cli.add_command(with_clear_errors(retrieve), "retrieve")
add_models(cli)
cli.add_command(tracking)
cli.add_command(with_clear_errors(reproduce_command("pipelines.reproduction.variables")), "reproduce")
cli.add_command(with_clear_errors(verify), "verify")
cli.add_command(with_clear_errors(sizes), "sizes")
cli.add_command(with_clear_errors(serve), "serve")
cli.add_command(with_clear_errors(demo_command("pipelines.demo.page", "any_to_any")), "demo")
cli.add_command(with_clear_errors(import_released), "import-released")
cli.add_command(with_clear_errors(export_released), "export-released")
add_commands(cli, kedro_run)
