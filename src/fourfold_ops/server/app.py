"""The HTTP interface: routes, limits, and errors as `{"error": one sentence}`."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from fourfold_ops.server.batching import Batcher, QueueFullError
from fourfold_ops.server.metrics import Metrics

JSON = "application/json"
LATE = "The model did not answer in time. Send fewer samples or targets, or try again later."
LOADING = "The model is being loaded. Try again in some seconds."
PREDICT, INVOCATIONS = "predict", "invocations"
SCHEMAS: dict[str, dict[str, Any]] = {
    PREDICT: {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"type": "object", "description": "input → value of one sample; any subset of the inputs"},
            "params": {"type": "object"},
        },
    },
    INVOCATIONS: {
        "type": "object",
        "description": "The protocol of `mlflow models serve`: exactly one table of samples, and params.",
        "properties": {
            "dataframe_records": {"type": "array", "items": {"type": "object"}},
            "dataframe_split": {"type": "object"},
            "inputs": {"type": "object"},
            "instances": {"type": "array", "items": {"type": "object"}},
            "params": {"type": "object"},
        },
    },
}


def create_app(batcher: Batcher, metrics: Metrics, background: Callable[[], Awaitable[None]]) -> FastAPI:
    """Return the application.

    Args:
        batcher: Answers the requests.
        metrics: Shown at `/metrics`.
        background: Loads the model and moves to new versions while the application runs.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(batcher.run()), asyncio.ensure_future(background())]
        yield
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.close()

    # No page of documentation: those of FastAPI load scripts from other servers. `/openapi.json` is complete.
    app = FastAPI(title="kedro serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, server_error)
    _add_model_routes(app, batcher, metrics)
    _add_service_routes(app, batcher, metrics)
    _describe_inputs(app, batcher)
    return app


def _add_model_routes(app: FastAPI, batcher: Batcher, metrics: Metrics) -> None:
    async def answered(route: str, request: Request) -> Response:
        began = time.perf_counter()
        response = await _answer(route, request, batcher)
        metrics.requests.labels(route, response.status_code).inc()
        metrics.seconds.labels(route).observe(time.perf_counter() - began)
        return response

    def body(route: str) -> dict[str, Any]:
        return {"requestBody": {"required": True, "content": {JSON: {"schema": SCHEMAS[route]}}}}

    @app.post("/predict", summary="Predict from the inputs of one sample", openapi_extra=body(PREDICT))
    async def predict(request: Request) -> Response:
        return await answered(PREDICT, request)

    @app.post("/invocations", summary="Predict from a table of samples", openapi_extra=body(INVOCATIONS))
    async def invocations(request: Request) -> Response:
        return await answered(INVOCATIONS, request)


def _add_service_routes(app: FastAPI, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether the server runs")
    @app.get("/ping", include_in_schema=False)
    async def health() -> Response:
        return answer_json(200, {"status": "running"})

    @app.get("/ready", summary="Whether the model is loaded")
    async def ready() -> Response:
        if batcher.process is None:
            return _being_loaded()
        return answer_json(200, {"status": "ready"})

    @app.get("/model", summary="Version, inputs, outputs and parameters of the model")
    async def model() -> Response:
        process = batcher.process
        if process is None:
            return _being_loaded()
        return answer_json(200, {"name": process.name, "version": process.number, **process.description})

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _being_loaded() -> Response:
    return answer_json(503, {"error": LOADING}, {"Retry-After": "5"})


async def _answer(route: str, request: Request, batcher: Batcher) -> Response:
    if batcher.process is None:
        return _being_loaded()
    body = await read_body(request, batcher.limits.max_body_bytes)
    if isinstance(body, Response):
        return body
    try:
        status, content = await batcher.submit(route, body)
    except QueueFullError as full:
        return answer_json(503, {"error": str(full)}, {"Retry-After": str(full.seconds)})
    except TimeoutError:
        return answer_json(504, {"error": LATE})
    return Response(content, status, media_type=JSON)


async def read_body(request: Request, limit: int, kind: str = JSON) -> bytes | Response:
    """Return the body, or the response that refuses it: another type than `kind`, or more bytes than `limit`."""
    given = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if given != kind:
        advice = " Send images as base64 in it." if kind == JSON else ""
        return answer_json(415, {"error": f"The body has the type {given}; it must be {kind}.{advice}"})
    body = await _body(request, limit)
    if body is None:
        return answer_json(
            413,
            {"error": f"The body is too large; up to {limit / 1e6:g} MB are allowed. Send smaller images or fewer samples."},
        )
    return body


async def _body(request: Request, limit: int) -> bytes | None:
    """Return the body, or None if it is larger than the limit; what is too much is never held in memory."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def _describe_inputs(app: FastAPI, batcher: Batcher) -> None:
    """Let `/openapi.json` name the inputs and parameters of the model in use, with its example."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        app.openapi_schema = None
        found = describe()
        description = batcher.process.description if batcher.process else {}
        schema = found["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]["schema"] = json.loads(
            json.dumps(SCHEMAS[PREDICT])
        )
        schema["properties"]["inputs"]["properties"] = {name: {} for name in description.get("inputs", ())}
        params = {name: {"default": default} for name, default in description.get("params", {}).items()}
        schema["properties"]["params"]["properties"] = params
        if description.get("example"):
            schema["example"] = {"inputs": description["example"]}
        return found

    app.openapi = openapi  # type: ignore[method-assign]


def answer_json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    """Return a response with JSON."""
    return Response(json.dumps(content), status, headers, JSON)


async def http_error(request: Request, error: Exception) -> Response:
    """Answer wrong paths and methods with one sentence."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"There is no page {request.url.path}. See /openapi.json.",
        405: f"{request.url.path} does not allow {request.method}. See /openapi.json.",
    }
    return answer_json(error.status_code, {"error": sentences.get(error.status_code, str(error.detail))})


async def server_error(request: Request, error: Exception) -> Response:
    """Answer an unexpected error without its details."""
    return answer_json(500, {"error": "The server failed on this request. Its log has the details."})
