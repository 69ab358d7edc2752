"""The synthetic default data set as a plug-in: rendered scenes with exact labels, and what is trained and scored on them."""


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # Imported here, so that a module of the scenes can be imported without everything that the plug-in provides
    from fourfold.labelers import registry
    from fourfold.scenes.teachers.labelers import LABELERS

    for labeler in LABELERS:
        registry.register(labeler)
