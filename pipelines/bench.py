"""`kedro bench list`, and the benchmarks of a model that is named on the command line of `kedro run`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.utils import find_kedro_project

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.errors import UserError

MODEL, BENCHMARKS, EVALUATION = "evaluation.model", "benchmarks", "evaluation"


def with_benchmarks(run: click.Command) -> click.Command:
    """Return `kedro run`, in which `--pipelines=evaluation --params=evaluation.model=...` runs the benchmarks of that model.

    A named model has no data set of this project, so the other nodes of the stage could not score it.
    """
    inner: Callable[..., Any] = run.callback or (lambda **options: None)

    def callback(**options: Any) -> Any:
        chosen = [*(options.get("pipelines") or ()), *filter(None, [options.get("pipeline")])]
        if chosen == [EVALUATION] and names_model(options.get("params")):
            options = {**options, "pipeline": None, "pipelines": [BENCHMARKS]}
        return inner(**options)

    return click.Command(name=run.name, callback=callback, params=run.params, help=run.help)


def names_model(params: Any) -> bool:
    """Return whether parsed or literal `--params` name a model."""
    if isinstance(params, dict):
        return bool((params.get("evaluation") or {}).get("model")) if "evaluation" in params else MODEL in params
    return isinstance(params, str) and any(pair.partition("=")[0].strip() == MODEL for pair in params.split(","))


@click.group()
def bench() -> None:
    """Public benchmarks in their official layouts."""


@click.command("list")
@click.option("--names", is_flag=True, help="Print only the names.")
def list_all(names: bool) -> None:
    """List the benchmarks, what their data need, and whether they were found."""
    from fourfold.evaluation.benchmarks.suite import list_benchmarks
    from fourfold.plugins import load_plugins

    found = environments()
    load_plugins(dict.fromkeys(plugin for content in found.values() for plugin in content.get("plugins") or ()))
    rows = list_benchmarks({name: (each.get("evaluation") or {}).get("benchmarks") or {} for name, each in found.items()})
    for row in rows:
        if names:
            click.echo(row.name)
            continue
        state = "found" if not row.missing else "no data"
        where = f"--env={row.environment}, {row.path}" if row.path is not None else "no environment"
        click.echo(f"{row.name}: {row.title} [{state}] ({where})")
        click.echo(f"    needs: {'; '.join(row.layout)}")
        if row.missing:
            click.echo(f"    missing: {'; '.join(row.missing)}. From {row.site}.")
    if not names:
        with_data = sum(not row.missing for row in rows)
        click.echo(
            f"{with_data} of {len(rows)} benchmarks have their data. Paths: --params=evaluation.benchmarks.NAME.path=FOLDER"
        )


def environments() -> dict[str, dict[str, Any]]:
    """Return the parameters of every folder of conf/, base first; without the rest of the configuration, to be quick.

    Raises:
        UserError: The current folder is in no project, or a file is no YAML.
    """
    project = find_kedro_project(Path.cwd())
    if project is None:
        raise UserError(f"{Path.cwd()} is not in a project, so there is no conf/.", "Change to a project folder.")
    found = {}
    for path in sorted(Path(project).glob("conf/*/parameters.yml"), key=lambda path: (path.parent.name != "base", path)):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{path} is no YAML ({str(error).splitlines()[0]}).", "Correct it.") from error
        found[path.parent.name] = content if isinstance(content, dict) else {}
    return found


bench.add_command(with_clear_errors(list_all))
