"""The synthetic default data set as a plug-in: rendered scenes with exact labels, and what is trained and scored on them."""


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # imported here: importing the package must stay cheap, and free of cycles with the registries
    from fourfold.data.ingestion.sources import register_source
    from fourfold.scenes.source import ScenesSource

    register_source(ScenesSource())
