"""The HTTP interface of `kedro demo`: the files of a page, and models that it can ask."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from fourfold_ops.errors import UserError, one_line
from fourfold_ops.server.app import JSON, LATE, answer_json, read_body, server_error
from fourfold_ops.server.batching import QueueFullError
from fourfold_ops.server.pool import Pool

# The browser refuses whatever would come from elsewhere, also by mistake.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Page(Protocol):
    """What a project provides: the files of the page, and values in a form that the page can show."""

    folder: Path  # of `index.html` and the files that it loads

    def about(self) -> Any:
        """Return what the page needs once, as JSON."""

    def describe(self, description: Mapping[str, Any]) -> Any:
        """Return the description of a model (names of inputs and outputs, parameters) as the page needs it, as JSON."""

    def present(self, outputs: Mapping[str, Any]) -> Any:
        """Return the outputs of a model, which come as JSON, in the form that the page shows, as JSON."""

    def read(self, name: str, content: Any) -> Any:
        """Return an input in the same form: the bytes of a file that the user opens, or an edited value, which comes as JSON.

        Raises:
            ValueError: It cannot be an input.
        """


def create_demo(pool: Pool, page: Page) -> FastAPI:
    """Return the application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.close()

    app = FastAPI(title="kedro demo", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(Exception, server_error)

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    _add_routes(app, pool, page)
    app.mount("/", StaticFiles(directory=page.folder, html=True))
    return app


def _add_routes(app: FastAPI, pool: Pool, page: Page) -> None:
    @app.get("/health")
    async def health() -> Response:
        return answer_json(200, {"status": "running"})

    @app.get("/api/about")
    async def about() -> Response:
        return answer_json(200, await asyncio.to_thread(page.about))

    @app.get("/api/models")
    async def models() -> Response:
        return answer_json(200, [choice.shown() for choice in await pool.choices()])

    @app.get("/api/models/{id}")
    async def model(id: str) -> Response:
        return answer_json(200, page.describe(await pool.describe(id)))

    @app.post("/api/models/{id}/predict")
    async def predict(id: str, request: Request) -> Response:
        body = await read_body(request, pool.limits.max_body_bytes)
        if isinstance(body, Response):
            return body
        try:
            status, content = await pool.predict(id, body)
        except QueueFullError as full:
            return answer_json(503, {"error": str(full)})
        except TimeoutError:
            return answer_json(504, {"error": LATE})
        if status != 200:
            return Response(content, status, media_type=JSON)
        return await asyncio.to_thread(lambda: answer_json(200, page.present(json.loads(content)["outputs"])))

    @app.post("/api/read/{name}")
    async def read(name: str, request: Request) -> Response:
        is_value = request.headers.get("content-type", "").partition(";")[0] == JSON
        body = await read_body(request, pool.limits.max_body_bytes, JSON if is_value else "application/octet-stream")
        if isinstance(body, Response):
            return body
        try:
            found = await asyncio.to_thread(lambda: page.read(name, json.loads(body) if is_value else body))
        except ValueError as error:
            return answer_json(400, {"error": " ".join(str(error).split())})
        return answer_json(200, found)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer_json(
        error.status_code, {"error": f"{request.method} {request.url.path}: {error.detail}. Open / for the page."}
    )


async def _user_error(request: Request, error: Exception) -> Response:
    return answer_json(400, {"error": one_line(error)})
