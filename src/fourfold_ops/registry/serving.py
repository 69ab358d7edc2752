"""Loads a registered model for MLflow. The file is stored with the model, so it imports neither Kedro nor this repository.

No pickle is involved: the class that the configuration of the model names opens the model folder.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

TEXT, JSON = "str", "json"  # kinds of input that are not arrays; any other kind is the name of a NumPy dtype


def _load_pyfunc(data_path: str, model_config: dict[str, Any]) -> "AnyInput":
    """Open the model folder; MLflow requires this name in a `loader_module`."""
    module, _, name = model_config["loader"].rpartition(".")
    loader: Any = getattr(import_module(module), name)
    model = loader.load(Path(data_path))
    return AnyInput(model, model_config["inputs"])


class AnyInput:
    """Adapts MLflow's tables (or plain dictionaries) to `model.predict(conditions, **params)`."""

    def __init__(self, model: Any, inputs: dict[str, str]) -> None:
        self.model = model
        self.inputs = inputs

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Predict from any subset of the inputs, given as columns with one sample per row.

        Raises:
            ValueError: A column is not an input of the model.
        """
        columns = {str(name): list(model_input[name]) for name in model_input}
        unknown = sorted(set(columns) - set(self.inputs))
        if unknown:
            raise ValueError(f"Unknown inputs {unknown}. Allowed, in any combination: {', '.join(sorted(self.inputs))}.")
        given = {name: values for name, values in columns.items() if not all(_absent(value) for value in values)}
        conditions = {name: self._values(name, values) for name, values in given.items()}
        return self.model.predict(conditions, **{key: _plain(value) for key, value in (params or {}).items()})

    def _values(self, name: str, values: list[Any]) -> Any:
        if any(_absent(value) for value in values):  # None marks the samples that lack this input
            given = iter(self._values(name, [value for value in values if not _absent(value)]))
            return [None if _absent(value) else next(given) for value in values]
        kind = self.inputs[name]
        if kind in (TEXT, JSON):
            # MLflow turns {"caption": ["a", "b"]} into one row that holds the list.
            return list(values[0]) if kind == TEXT and len(values) == 1 and not isinstance(values[0], str) else values
        return np.stack([np.asarray(value, dtype=kind) for value in values])


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
