"""All parameters are checked against one pydantic model before anything runs."""

from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from pydantic import BaseModel, ValidationError

from fourfold_ops.errors import UserError
from fourfold_ops.loading import load_object
from fourfold_ops.suggestions import did_you_mean


class ParametersHook:
    """Checks `conf/*/parameters*.yml` with everything that `--env` and `--params` put over them."""

    def __init__(self, model: str) -> None:
        """`model` is the dotted path of a pydantic class with one field for each top-level section."""
        self._model = model

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Raise UserError that lists every unknown key and illegal value, and what is allowed."""
        check_parameters(context.config_loader["parameters"], load_object(self._model))


def check_parameters(values: dict[str, Any], model: type[BaseModel]) -> None:
    """Raise UserError when `values` do not fit `model`."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        problems = [explain(problem, model) for problem in error.errors(include_url=False)]
        raise UserError(
            "Parameters are not valid: " + "; ".join(problems) + ".", remedy="Correct them in conf/ or in --params."
        ) from None


def explain(problem: Any, model: type[BaseModel]) -> str:
    """Return one of pydantic's problems with a value for `model` in words, with what is allowed."""
    if problem["type"] == "value_error":  # a check of our own, which says all itself
        return str(problem["msg"]).removeprefix("Value error, ").removesuffix(".")
    *parents, key = problem["loc"]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where} = {problem['input']!r}: {problem['msg']}" if problem["type"] != "missing" else f"{where} is missing"
    allowed = _fields_at(model, parents)
    return f"{where} is an unknown key.{did_you_mean(str(key), allowed)} Allowed: {', '.join(sorted(allowed))}"


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Return the names of the fields of the model that lies at `path` in `model` (through optionals, lists and dicts)."""
    if not path:
        return list(model.model_fields)
    if path[0] in model.model_fields:
        inner = _models_in(model.model_fields[path[0]].annotation)
        rest = path[1:]
        while rest and not any(rest[0] in m.model_fields for m in inner):
            rest = rest[1:]  # an index, a dictionary's key or the name of a union's member
        return [name for m in inner for name in _fields_at(m, rest)]
    return []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
