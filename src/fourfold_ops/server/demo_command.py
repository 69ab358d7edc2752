"""`kedro demo`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourfold_ops.cli.catalog import catalog_path, configuration
from fourfold_ops.errors import UserError
from fourfold_ops.hooks.threads import limit_idle_threads
from fourfold_ops.loading import load_object
from fourfold_ops.server.command import registered_name, registry_uri, run_application
from fourfold_ops.server.listening import listen

if TYPE_CHECKING:
    from fourfold_ops.server.pool import Choice

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = 20_000_000  # of a photo as base64, or an array as text
ORDER = ("champion", "candidate", "previous")  # of versions in the list
FOLDER = "folder"
Models = tuple[Callable[[], Sequence["Choice"]], dict[str, str]]  # what can be chosen, and variables of its processes


def demo_command(page: str, folder_entry: str) -> click.Command:
    """Return the command.

    Args:
        page: Dotted path of a function that returns a `fourfold_ops.server.demo.Page`. Its arguments are the name of the
            environment (a folder of conf/, or None), and whether the model is one of the project, not a folder of the user.
        folder_entry: Data set of the catalog with a model folder, which is shown if nothing is registered.
    """

    @click.command()
    @click.option("--env", help="A folder of conf/ whose catalog names the model.")
    @click.option(
        "--model",
        help="NAME@ALIAS, NAME@VERSION or a model folder. [default: champion, candidate and previous of `registered_model` "
        "of the catalog; if nothing is registered, its model folder]",
    )
    @click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 to be reached from other machines.")
    @click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535))
    def demo(env: str | None, model: str | None, host: str, port: int) -> None:
        """Open a page on which a model can be tried in the browser."""
        from fourfold_ops.server.batching import Limits
        from fourfold_ops.server.demo import create_demo
        from fourfold_ops.server.pool import Pool

        limit_idle_threads()
        with listen(host, port) as listener:
            choices, environment = _models(env, model, folder_entry)
            first = choices()[0]
            app = create_demo(
                Pool(choices, environment, Limits(max_body_bytes=MAX_BODY_BYTES)),
                load_object(page)(env, model is None or "@" in model),
            )
            address = listener.getsockname()
            shown = f"{first.name}@{first.id}" if first.folder is None else first.name
            click.echo(f"Demo of {shown}: open http://{_host(address[0])}:{address[1]} in a browser (stop with Ctrl-C)")
            run_application(app, listener, patience=1)  # who stops a demo waits for no answer

    return demo


def _host(address: str) -> str:
    """Return an address as part of a URL; one that stands for all addresses as one that a browser can open."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    return f"[{address}]" if ":" in address else address


def _models(env: str | None, model: str | None, folder_entry: str) -> Models:
    if model is not None and "@" not in model:
        return _folder(Path(model), env)
    if model is not None:
        name, _, wanted = model.rpartition("@")
        return _versions(name, wanted, env)
    try:
        return _versions(registered_name(env), "", env)
    except UserError as reason:
        folder = catalog_path(folder_entry, env)
        if not folder.is_dir():
            raise
        logger.info("%s The demo shows %s.", reason, folder)
        return _folder(folder, env)


def _folder(folder: Path, env: str | None) -> Models:
    from fourfold_ops.server.pool import Choice
    from fourfold_ops.server.process import FolderSpec

    if not folder.is_dir():
        raise UserError(f"There is no model folder {folder}.", "Give --model a folder, or NAME@ALIAS of a registered model.")
    entry = (configuration("catalog", env) or {}).get("registered_model") or {}
    if "loader" not in entry:
        raise UserError(
            "The catalog has no `registered_model` with a loader, which tells how a folder is loaded.",
            "Change to the folder of the project.",
        )
    plugins = tuple((configuration("parameters", env) or {}).get("plugins") or ())
    spec = FolderSpec(str(folder.resolve()), entry["loader"], entry.get("params") or {}, plugins)
    return lambda: [Choice(FOLDER, str(folder), folder=spec)], {}


def _versions(name: str, wanted: str, env: str | None) -> Models:
    """Return the version or alias `wanted` of a registered model; with "", those with an alias, the champion first."""
    import mlflow

    uri = registry_uri(env)
    client = mlflow.MlflowClient(uri, registry_uri=uri)

    def choices() -> list["Choice"]:
        from fourfold_ops.registry.versions import ModelVersions

        versions = ModelVersions(client, name)
        numbers = [wanted] if wanted else [alias for alias in ORDER if alias in versions.aliases] or _latest(versions)
        found: dict[str, Any] = {version.number: version for version in map(versions.get, numbers)}
        return [_choice(name, version) for version in found.values()]

    choices()  # errors come before the page opens
    return choices, {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}


def _latest(versions: Any) -> list[str]:
    newest = next(versions.all(), None)
    if newest is None:
        raise UserError(f"The model {versions.name} has no version.", "Register one with `kedro run`.")
    return [newest.number]


def _choice(name: str, version: Any) -> "Choice":
    from fourfold_ops.server.pool import Choice

    aliases = sorted(version.aliases, key=lambda alias: (ORDER.index(alias) if alias in ORDER else len(ORDER), alias))
    return Choice(version.number, name, tuple(aliases), tuple(version.marks))
