"""Loads the plug-ins of conf/ in every Kedro session, also in one without hooks, such as that of Kedro-Viz."""

import sys
from typing import Any

from kedro.config import OmegaConfigLoader

from fourfold.plugins import load_plugins

REGISTRY = "pipelines.pipeline_registry"
_named: list[str] = []  # of the parameters that were read last


class PluginConfigLoader(OmegaConfigLoader):
    """Notes the plug-ins that the parameters name.

    They are loaded with the pipelines, or at once if these are loaded: `kedro plan` reads parameters without the libraries
    that a plug-in needs.
    """

    def __getitem__(self, key: str) -> Any:
        """Return a part of the configuration."""
        found = super().__getitem__(key)
        if key == "parameters":
            modules = found.get("plugins")
            is_list = isinstance(modules, list) and all(isinstance(module, str) for module in modules)
            _named[:] = modules or () if is_list else ()  # another type is refused with all other errors in the parameters
            if REGISTRY in sys.modules:
                load_named_plugins()
        return found


def load_named_plugins() -> None:
    """Load the plug-ins of the parameters that were read last; raises ValueError for one that cannot be imported."""
    load_plugins(_named)
