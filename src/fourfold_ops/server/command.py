"""`kedro serve`."""

import asyncio
import functools
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.utils import find_kedro_project

from fourfold_ops.cli.catalog import configuration
from fourfold_ops.errors import UserError
from fourfold_ops.hooks.threads import limit_idle_threads
from fourfold_ops.server.listening import listen

if TYPE_CHECKING:
    from fourfold_ops.server.batching import Limits

logger = logging.getLogger(__name__)
MEGABYTE = 1_000_000
STOPPING = "The server is stopping. Try again when it has started."


@click.command()
@click.option("--env", help="A folder of conf/ whose catalog names the model.")
@click.option("--model", help="NAME@ALIAS or NAME@VERSION. [default: `registered_model` of the catalog, @champion]")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 to be reached from other machines.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--max-batch", default=16, show_default=True, type=click.IntRange(1), help="Requests answered at once.")
@click.option("--max-queue", default=512, show_default=True, type=click.IntRange(1), help="Requests that wait; more get 503.")
@click.option("--max-body", default=10.0, show_default=True, type=click.FloatRange(0.001), help="Megabytes of a request.")
@click.option("--poll", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between looks at the alias.")
def serve(
    env: str | None, model: str | None, host: str, port: int, max_batch: int, max_queue: int, max_body: float, poll: float
) -> None:
    """Answer HTTP requests with a registered model, and follow its alias to new versions."""
    from fourfold_ops.server.batching import Limits

    limit_idle_threads()  # of the process of the model
    limits = Limits(max_batch=max_batch, max_queue=max_queue, max_body_bytes=int(max_body * MEGABYTE))
    name, _, alias = (model or "").partition("@")
    with listen(host, port) as listener:
        _run(name or registered_name(env), alias or "champion", registry_uri(env), (listener, limits, poll))


def _run(name: str, alias: str, uri: str, how: tuple[socket.socket, "Limits", float]) -> None:
    import mlflow

    from fourfold_ops.server.app import create_app
    from fourfold_ops.server.batching import Batcher
    from fourfold_ops.server.champion import Follower, RegistryAlias
    from fourfold_ops.server.metrics import Metrics

    listener, limits, poll = how
    metrics = Metrics()
    batcher = Batcher(limits, metrics)
    registered = RegistryAlias(mlflow.MlflowClient(uri, registry_uri=uri), name, alias)
    first = registered.version()
    follower = Follower(registered, batcher, metrics, {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri})

    stop = functools.partial(signal.raise_signal, signal.SIGTERM)  # uvicorn ends on it
    app = create_app(batcher, metrics, lambda: follower.run(first, poll, stop))
    address, port = listener.getsockname()[:2]
    click.echo(f"Serving {name}@{alias} at http://{address}:{port} (POST /predict; description: /openapi.json)")
    run_application(app, listener)
    if follower.failure is not None:
        raise follower.failure


def run_application(app: Any, listener: socket.socket, patience: int = 30) -> None:
    """Serve an application until SIGTERM or Ctrl-C; what it has accepted is answered first, for up to `patience` seconds."""
    import uvicorn

    served = _without_cancelled_requests(app)
    server = uvicorn.Server(uvicorn.Config(served, log_config=None, access_log=False, timeout_graceful_shutdown=patience))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn stops on these and sends them again afterwards
    server.run(sockets=[listener])


def _without_cancelled_requests(app: Any) -> Any:
    """Return an ASGI application that answers 503 to requests that the end of the server cancels, e.g. while a model is loaded.

    uvicorn would print a traceback for each of them.
    """
    from fourfold_ops.server.app import answer_json

    async def served(scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def noting(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, noting)
        except asyncio.CancelledError:
            if scope["type"] != "http" or begun:
                raise
            await answer_json(503, {"error": STOPPING}, {"Connection": "close"})(scope, receive, send)

    return served


def registered_name(env: str | None) -> str:
    """Return the name of the catalog's `registered_model`; raises UserError if there is none."""
    entry = (configuration("catalog", env) or {}).get("registered_model") or {}
    if "name" not in entry:
        raise UserError(
            "The catalog has no `registered_model` with a name.", "Give --model NAME@ALIAS, or change to the project."
        )
    return str(entry["name"])


def registry_uri(env: str | None) -> str:
    """Return the address of the registry: that of the environment, else that of conf/.

    Raises:
        UserError: There is none, or its server does not answer.
    """
    from fourfold_ops.tracking.server import check_answers
    from fourfold_ops.tracking.store import SQLITE, VARIABLE, absolute_uri

    project = find_kedro_project(Path.cwd())
    uri = os.environ.get(VARIABLE) or (configuration("tracking", env) or {}).get("uri")
    if not uri:
        raise UserError("There is no model registry.", f"Set {VARIABLE}, or change to a project folder.")
    absolute = absolute_uri(uri, project or Path.cwd())
    path = Path(absolute.removeprefix(SQLITE))
    if absolute.startswith(SQLITE) and not path.is_file():  # MLflow would create an empty one
        raise UserError(
            f"There is no model registry: {path} does not exist.", "Run `kedro run` first, or set MLFLOW_TRACKING_URI."
        )
    check_answers(absolute, VARIABLE if os.environ.get(VARIABLE) else "conf/*/tracking.yml")
    return absolute
