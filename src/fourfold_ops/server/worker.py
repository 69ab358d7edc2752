"""Loads a version of a registered model, or a model folder, and answers batches of requests: from stdin, to stdout.

The file runs as a script, so that `fourfold_ops` and the package of the model are those stored with the version. It must
therefore import nothing of this repository, except for a folder that is in no registry.
"""

import contextlib
import json
import os
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

HEADER = struct.Struct(">QQ")  # bytes of a JSON header, and of all bodies together
TABLES = ("dataframe_records", "dataframe_split", "inputs", "instances")
FAILED = "The model failed on this request. The log of the server has the details."


class Model:
    """The loaded model: `prepare` checks one request, `answer` computes many."""

    def __init__(self, uri: str) -> None:
        from mlflow import pyfunc

        self.pyfunc = pyfunc.load_model(uri)
        self.adapter = self.pyfunc._model_impl
        params = self.pyfunc.metadata.get_params_schema()
        self.specs = {spec.name: spec for spec in params.params} if params else {}
        self.checks = getattr(sys.modules[type(self.adapter).__module__], "check_params", None)

    def describe(self) -> dict[str, Any]:
        """Return names of inputs and outputs, parameters with defaults, and the example, as JSON."""
        signature, example = self.pyfunc.metadata.signature, self.pyfunc.input_example
        columns = example if isinstance(example, dict) else {}
        return {
            "inputs": signature.inputs.input_names(),
            "outputs": signature.outputs.input_names() if signature.outputs else [],
            "params": {name: spec.default for name, spec in self.specs.items()},
            "example": {name: values[0] for name, values in columns.items()} or None,
        }

    def prepare(self, columns: dict[str, list[Any]], params: Any) -> Any:
        """Return a checked request; raises ValueError for what its sender can correct."""
        if self.checks is None:  # a version from before requests were checked
            return columns, params
        self.checks(params, self.specs)
        defaults = {name: spec.default for name, spec in self.specs.items()}
        return self.adapter.prepare(columns, defaults | {name: value for name, value in params.items() if value is not None})

    def answer(self, requests: list[Any]) -> list[Any]:
        """Return the answers to prepared requests."""
        if self.checks is None:
            return [self.pyfunc.predict(columns, params=params) for columns, params in requests]
        return list(self.adapter.answer(requests))


class FolderModel(Model):
    """A model folder that is in no registry, loaded with the installed packages."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from importlib import import_module
        from pathlib import Path

        from fourfold_ops.registry.serving import AnyInput, check_params, param_specs

        for name in spec["plugins"]:
            import_module(name).register()
        module, _, attribute = spec["loader"].rpartition(".")
        model = getattr(import_module(module), attribute).load(Path(spec["path"]))
        self.adapter, self.checks = AnyInput(model, model.input_kinds), check_params
        self.specs = {param.name: param for param in param_specs(spec["params"])}

    def describe(self) -> dict[str, Any]:
        """Return names of inputs and outputs, and parameters with defaults, as JSON."""
        params = {name: spec.default for name, spec in self.specs.items()}
        return {
            "inputs": list(self.adapter.inputs),
            "outputs": list(self.adapter.model.targets),
            "params": params,
            "example": None,
        }


def answer_all(model: Model, requests: list[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    """Return status and body for each request (its route, and its body)."""
    found: list[tuple[int, Any]] = [(500, {"error": FAILED})] * len(requests)
    prepared: dict[int, Any] = {}
    for index, (route, body) in enumerate(requests):
        try:
            prepared[index] = model.prepare(*parse(route, body))
        except ValueError as error:
            found[index] = 400, {"error": " ".join(str(error).split())}
        except Exception:
            traceback.print_exc()
    for index, values in computed(model, prepared).items():
        route = requests[index][0]
        found[index] = 200, {"predictions": values} if route == "invocations" else {"outputs": first_sample(values)}
    return [(status, json.dumps(body, default=plain).encode()) for status, body in found]


def computed(model: Model, prepared: dict[int, Any]) -> dict[int, Any]:
    """Return the answers that could be computed: all at once, and one by one if that fails."""
    try:
        return dict(zip(prepared, model.answer(list(prepared.values())), strict=True))
    except Exception:
        traceback.print_exc()
    answers = {}
    for index, request in prepared.items() if len(prepared) > 1 else ():
        with contextlib.suppress(Exception):
            answers[index] = model.answer([request])[0]
    return answers


def parse(route: str, body: bytes) -> tuple[dict[str, list[Any]], Any]:
    """Return columns (input → one value for each sample) and parameters of a JSON body; raises ValueError."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The body is not JSON ({str(error)[:100]}). Send an object with `inputs` and `params`.") from None
    if not isinstance(content, dict):
        raise ValueError("The body must be a JSON object with `inputs` and `params`.")
    tables = TABLES if route == "invocations" else ("inputs",)
    if unknown := sorted(content.keys() - {*tables, "params"}):
        raise ValueError(f"Unknown key {unknown[0]!r} of the body. Allowed: {', '.join(tables)}, params.")
    given = [name for name in tables if name in content]
    if len(given) != 1:
        raise ValueError(f"The body must have exactly one of {', '.join(tables)}.")
    params = content.get("params")
    table = content[given[0]]
    if route != "invocations":
        if not isinstance(table, dict):
            raise ValueError("`inputs` must be an object, input → value of one sample.")
        return {name: [value] for name, value in table.items()}, {} if params is None else params
    return columns_of(given[0], table), {} if params is None else params


def columns_of(kind: str, table: Any) -> dict[str, list[Any]]:
    """Return the columns of one of MLflow's four forms of a table; raises ValueError."""
    if kind == "inputs":
        if not isinstance(table, dict):
            raise ValueError("`inputs` must be an object, input → list with one value for each sample.")
        return {name: value if isinstance(value, list) else [value] for name, value in table.items()}
    if kind == "dataframe_split":
        is_table = isinstance(table, dict) and isinstance(table.get("columns"), list) and isinstance(table.get("data"), list)
        if not is_table or any(not isinstance(row, list) or len(row) != len(table["columns"]) for row in table["data"]):
            raise ValueError("`dataframe_split` must have `columns`, a list of names, and `data`, lists with a value for each.")
        return {str(name): [row[index] for row in table["data"]] for index, name in enumerate(table["columns"])}
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise ValueError(f"`{kind}` must be a list of objects, input → value, one for each sample.")
    return {name: [row.get(name) for row in table] for name in dict.fromkeys(name for row in table for name in row)}


def first_sample(values: Any) -> Any:
    """Return the values of the only sample, by target."""
    return {name: column[0] for name, column in values.items()} if isinstance(values, dict) else values


def plain(value: Any) -> Any:
    """Return arrays and NumPy numbers as lists and numbers, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def read_frame(stream: BinaryIO) -> tuple[Any, bytes] | None:
    """Return header and bodies of the next message, or None at the end."""
    sizes = stream.read(HEADER.size)
    if len(sizes) < HEADER.size:
        return None
    header, bodies = HEADER.unpack(sizes)
    return json.loads(stream.read(header)), stream.read(bodies)


def frame(header: Any, bodies: list[bytes]) -> bytes:
    """Return a message: sizes, the header as JSON, then the bodies."""
    text = json.dumps(header).encode()
    return HEADER.pack(len(text), sum(map(len, bodies))) + text + b"".join(bodies)


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    """Return the parts of joined bodies."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [content[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def serve(load: Callable[[], Model], source: BinaryIO, target: BinaryIO) -> None:
    """Load the model, describe it, then answer until the source ends."""
    try:
        model = load()
        target.write(frame({"ready": model.describe()}, []))
    except Exception as error:
        traceback.print_exc()
        target.write(frame({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}, []))
        target.flush()
        return
    target.flush()
    while (message := read_frame(source)) is not None:
        routes, sizes = message[0]["routes"], message[0]["sizes"]
        answers = answer_all(model, list(zip(routes, cut(message[1], sizes), strict=True)))
        header = {"statuses": [status for status, _ in answers], "sizes": [len(body) for _, body in answers]}
        target.write(frame(header, [body for _, body in answers]))
        target.flush()


if __name__ == "__main__":
    if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):  # noqa: PTH100, PTH120 (as Python has put it there)
        sys.path.pop(0)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    chosen = sys.argv[1:]
    serve(
        lambda: FolderModel(json.loads(chosen[1])) if chosen[0] == "--folder" else Model(chosen[0]), sys.stdin.buffer, answers
    )
