"""The synthetic default data set as a plug-in: rendered scenes with exact labels, and what is trained and scored on them."""


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # Imported here, so that importing the package stays cheap, and free of cycles with the registries
    from fourfold.data.ingestion.sources import register_source
    from fourfold.labelers.registry import register as register_labeler
    from fourfold.scenes.source import ScenesSource
    from fourfold.scenes.teachers.labelers import LABELERS

    register_source(ScenesSource())
    for labeler in LABELERS:
        register_labeler(labeler)
