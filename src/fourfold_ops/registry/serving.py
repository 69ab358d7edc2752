"""Loads a registered model for MLflow. The file is stored with the model, so it imports neither Kedro nor this repository.

No pickle is involved: the class that the configuration of the model names opens the model folder.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from fourfold_ops.registry.values import read
from fourfold_ops.suggestions import did_you_mean

REMEDY = (  # the steps that the loader's own error names would write another folder
    "This is a registered version: load it in a process that has not imported {package}, which then uses the code stored with "
    "the version; or register the current model with `kedro run`."
)
TYPES: dict[str, tuple[tuple[type, ...], str]] = {  # of parameters, by the name of MLflow's type
    "long": ((int,), "a whole number"),
    "double": ((int, float), "a number"),
    "string": ((str,), "text"),
    "boolean": ((bool,), "true or false"),
}


class InputError(MlflowException, ValueError):
    """An error that the sender of a request can correct; servers of MLflow answer 400 with `{"error": sentence}`."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """Return the body of the answer: without the data and the place in the code, which MLflow would add."""
        return json.dumps({"error": self.sentence})


def _load_pyfunc(data_path: str, model_config: dict[str, Any]) -> "AnyInput":
    """Open the model folder; MLflow requires this name in a `loader_module`.

    Raises:
        ValueError: The folder is damaged, or of another version than the code that this process has imported.
    """
    module, _, name = model_config["loader"].rpartition(".")
    loader: Any = getattr(import_module(module), name)
    try:
        model = loader.load(Path(data_path))
    except ValueError as error:
        raise ValueError(f"{error} {REMEDY.format(package=module.partition('.')[0])}") from error
    refuse_unknown_names()
    return AnyInput(model, model_config["inputs"])


def refuse_unknown_names() -> None:
    """Let `PyFuncModel.predict` refuse unknown inputs and parameters of models that this module loads.

    MLflow drops them with a warning in the server's log before the model sees them, so that a misspelled name gives a wrong
    answer with status 200, and it has no setting for that. The version of MLflow is pinned in the requirements of the model.
    """
    pyfunc: Any = import_module("mlflow.pyfunc")  # `mlflow.pyfunc` may be a placeholder that loads the module later
    original = getattr(pyfunc, "_validate_prediction_input", None)
    if original is None or hasattr(original, "is_strict"):
        return

    def validate(data: Any, params: Any, input_schema: Any, params_schema: Any, flavor: Any = None) -> Any:
        if flavor != __name__:
            return original(data, params, input_schema, params_schema, flavor)
        if not hasattr(data, "keys"):
            raise InputError("Inputs need names: send `dataframe_records`, `dataframe_split`, or `inputs` with lists by name.")
        check_names("input", list(data), input_schema.input_names())
        check_params(
            {} if params is None else params, {spec.name: spec for spec in params_schema.params} if params_schema else {}
        )
        return original(data, params, input_schema, params_schema, flavor)

    validate.is_strict = True  # type: ignore[attr-defined]
    pyfunc._validate_prediction_input = validate


def check_names(noun: str, names: Sequence[Any], allowed: Sequence[str]) -> None:
    """Raise InputError that names the first unknown name."""
    for name in map(str, names):
        if name not in allowed:
            suggestion = did_you_mean(name, allowed)
            raise InputError(f"Unknown {noun} {name!r}.{suggestion} Allowed: {', '.join(sorted(allowed)) or 'none'}.")


def check_params(params: Any, specs: dict[str, Any]) -> None:
    """Raise InputError if a parameter is unknown or has another type than its specification; null means the default."""
    if not isinstance(params, dict):
        raise InputError(f'`params` must be an object, e.g. {{"seed": 1}}, got {type(params).__name__}.')
    check_names("parameter", list(params), list(specs))
    for name, value in params.items():
        types, described = TYPES.get(specs[name].dtype.name, ((object,), ""))
        values = [value] if specs[name].shape is None else value
        if specs[name].shape is not None and not isinstance(value, list | tuple | np.ndarray):
            raise InputError(f"Parameter {name!r} must be a list, each element {described}, got {value!r:.100}.")
        for one in map(_plain, values):
            is_wrong_bool = isinstance(one, bool) and bool not in types
            if not (one is None and specs[name].shape is None) and (is_wrong_bool or not isinstance(one, types)):
                raise InputError(f"Parameter {name!r} must be {described}, got {one!r:.100}.")


def param_specs(params: dict[str, Any]) -> list[Any]:
    """Return MLflow's specifications of parameters with these defaults; None is a number without one."""
    from mlflow.types import DataType, ParamSpec

    types = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}
    specs = []
    for name, default in params.items():
        sample = default[0] if isinstance(default, list) else 0.0 if default is None else default
        specs.append(ParamSpec(name, types[type(sample)], default, (-1,) if isinstance(default, list) else None))
    return specs


class AnyInput:
    """Adapts MLflow's tables (or plain dictionaries) to `model.predict(conditions, **params)`.

    A model with `prepare(conditions, **params)` and `answer(list of prepared)` can answer several requests at once.
    """

    def __init__(self, model: Any, inputs: dict[str, str]) -> None:
        self.model = model
        self.inputs = inputs

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Predict from any subset of the inputs, given as columns with one sample per row.

        Raises:
            InputError: A column is not an input of the model, or a value has the wrong form.
        """
        columns = {str(name): _listed(model_input[name]) for name in model_input}
        return self.answer([self.prepare(_expanded(columns), params)])[0]

    def prepare(self, columns: dict[str, list[Any]], params: dict[str, Any] | None = None) -> Any:
        """Return a checked request, to be passed to `answer`; raises InputError as `predict` does."""
        check_names("input", list(columns), list(self.inputs))
        try:
            conditions = {name: self._values(name, values) for name, values in columns.items()}
            settings = {key: _plain(value) for key, value in (params or {}).items()}
            settings = {key: value for key, value in settings.items() if value is not None}
            if hasattr(self.model, "prepare"):
                return self.model.prepare(conditions, **settings)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from error
        return conditions, settings

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Return the answers to prepared requests, in their order."""
        if hasattr(self.model, "answer"):
            return list(self.model.answer(requests))
        return [self.model.predict(conditions, **settings) for conditions, settings in requests]

    def _values(self, name: str, values: list[Any]) -> Any:
        """Return one column: an array if all samples have arrays of one shape, else a list, with None for absent values."""
        if all(_absent(value) for value in values):
            raise InputError(f"Input {name!r} is null or has no sample. Leave it out, or give a value.")
        found: list[Any] = [None if _absent(value) else read(name, self.inputs[name], value) for value in values]
        shapes = {value.shape if isinstance(value, np.ndarray) else None for value in found}
        return np.stack(found) if len(shapes) == 1 and None not in shapes else found


def _expanded(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Undo what MLflow does to `{"caption": ["a", "b"]}` and the like: one row that holds the list of all texts."""
    lists = [values[0] for values in columns.values() if len(values) == 1 and isinstance(values[0], list | np.ndarray)]
    is_packed = len(lists) == len(columns) and all(isinstance(one, str) for texts in lists for one in texts)
    return {name: list(values[0]) for name, values in columns.items()} if is_packed else columns


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, str | bytes | dict) else list(values)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
