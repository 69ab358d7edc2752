"""Loads the objects that the configuration names by dotted paths."""

from importlib import import_module
from typing import Any


def load_object(path: str) -> Any:
    """Return the object of a dotted path such as `fourfold.data.shards.ShardSet.open`: module, then attributes.

    Raises:
        ValueError: A part of the path does not exist; the message names it.
    """
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise  # the module exists, and an import inside it fails: that is the error to show
            continue
        for done, name in enumerate(parts[cut:], cut):
            if not hasattr(found, name):
                raise ValueError(f"{path!r}: {'.'.join(parts[:done])} has no {name!r}. Correct the dotted path in conf/.")
            found = getattr(found, name)
        return found
    raise ValueError(f"{path!r} cannot be imported: no module {parts[0]!r} (or no dot in the path). Correct the path in conf/.")
