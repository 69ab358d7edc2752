"""The project's commands: Kedro's own, `kedro generate`, `kedro k8s` and `kedro submit`; failures in one clear line."""

from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run

from fourfold_ops.failures import with_clear_errors
from fourfold_ops.kubernetes.commands import add_commands, with_kubernetes

MODEL_FOLDER = Path("data/04_models/any_to_any")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Commands of this project."""


@click.command()
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An image to start from.")
@click.option("--caption", help="A caption to start from; with --image, both are conditions.")
@click.option("--to", "targets", required=True, help="Labels to generate, by commas: depth,normal,semseg,caption,det,clip,rgb.")
@click.option("--model", type=click.Path(path_type=Path), default=MODEL_FOLDER, show_default=True, help="An any-to-any folder.")
@click.option(
    "--preset", default="greedy", show_default=True, help="How: greedy, dense or creative (fourfold/generation/config.py)."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("generated"), show_default=True)
def generate(image: Path | None, caption: str | None, targets: str, model: Path, preset: str, seed: int, out: Path) -> None:
    """Generate any labels from an image, a caption or both, as files and one contact sheet."""
    from fourfold.data.cleaning import CleaningConfig, Unusable, clean_caption, clean_image
    from fourfold.evaluation.answers import write_answers
    from fourfold.generation.any_to_any import AnyToAny

    if image is None and caption is None:
        raise click.UsageError("Give --image, --caption or both.")
    any_to_any = AnyToAny.load(model)
    conditions: dict[str, Any] = {}
    try:
        if image is not None:
            conditions["rgb"] = clean_image(image.read_bytes(), CleaningConfig(), any_to_any.image_size)
        if caption is not None:
            conditions["caption"] = clean_caption(caption.encode(), CleaningConfig(min_caption_length=1))
    except Unusable as reason:
        raise ValueError(f"{reason}: the same would be dropped in ingestion. Give another image or caption.") from None
    asked = [name.strip() for name in targets.split(",") if name.strip()]
    batch = {name: value[None] if name == "rgb" else [value] for name, value in conditions.items()}
    found = any_to_any.predict(batch, asked, preset_name=preset, seed=seed)
    for path in write_answers(conditions, {name: values[0] for name, values in found.items()}, out):
        click.echo(path)


cli.add_command(with_clear_errors(with_kubernetes(kedro_run)), "run")
cli.add_command(with_clear_errors(generate), "generate")
add_commands(cli, kedro_run)
