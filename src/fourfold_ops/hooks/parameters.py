"""Checks all parameters against one pydantic model before anything runs."""

import re
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from pydantic import BaseModel, ValidationError

from fourfold_ops.errors import UserError
from fourfold_ops.loading import load_object
from fourfold_ops.suggestions import did_you_mean

# Of a value that may have several types, pydantic adds the type to the place: `steps.constrained-int`, `steps.dict[str,int]`.
UNION_MEMBER = re.compile(
    r"[\[\]]|^(constrained-|function-|nullable|lax-or-strict|literal)|^(int|float|str|bool|none|dict|list|tuple)$"
)


class ParametersHook:
    """Checks `conf/*/parameters*.yml`, with what `--env` and `--params` change."""

    def __init__(self, model: str) -> None:
        """Create the hook for a model, given as the dotted path of a pydantic class with one field per top-level section."""
        self._model = model

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Raise UserError with every unknown key and illegal value, and what is allowed."""
        self.check(context.config_loader["parameters"])

    def check(self, parameters: dict[str, Any]) -> None:
        """Raise UserError if parameters are not valid; `kedro plan` calls it too."""
        check_parameters(parameters, load_object(self._model))


def check_parameters(values: dict[str, Any], model: type[BaseModel]) -> None:
    """Raise UserError if `values` do not fit `model`."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        problems = [explain(problem, model) for problem in error.errors(include_url=False)]
        raise UserError(
            "Parameters are not valid: " + "; ".join(problems).rstrip(".") + ".", remedy="Correct them in conf/ or in --params."
        ) from None


def explain(problem: Any, model: type[BaseModel]) -> str:
    """Return one of pydantic's error details about a value for `model` as text, with what is allowed."""
    if problem["type"] == "value_error":  # raised by a check of the model, whose message is complete
        return str(problem["msg"]).removeprefix("Value error, ")
    *parents, key = problem["loc"]
    where = ".".join(str(part) for part in problem["loc"] if not UNION_MEMBER.search(str(part)))
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] != "extra_forbidden":
        return f"{where} = {problem['input']!r}: {problem['msg']}"
    allowed = _fields_at(model, parents)
    return f"{where} is an unknown key.{did_you_mean(str(key), allowed)} Allowed: {', '.join(sorted(allowed))}"


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Return the names of the fields of the model at `path` in `model` (through optionals, lists and dictionaries)."""
    if not path:
        return list(model.model_fields)
    if path[0] in model.model_fields:
        inner = _models_in(model.model_fields[path[0]].annotation)
        rest = path[1:]
        # skip an index, the key of a dictionary, or the name of a member of a union
        while rest and not any(rest[0] in m.model_fields for m in inner):
            rest = rest[1:]
        return [name for m in inner for name in _fields_at(m, rest)]
    return []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
