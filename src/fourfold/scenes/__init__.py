"""The synthetic default data set as a plug-in: rendered scenes with exact labels, and what is trained and scored on them."""

import importlib


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # By name: an import statement would make every module of the plug-in a dependency of each of them, and so of each stage
    # that uses only one, e.g. the scoring of captions a dependency of ingestion.
    importlib.import_module("fourfold.scenes.plugin").register()
