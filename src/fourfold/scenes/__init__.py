"""The synthetic default data set as a plug-in: rendered scenes with exact labels, and what is trained and scored on them."""


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # Imported here, so that importing the package stays cheap and makes no cycles with the registries.
    from fourfold.data.ingestion.sources import SOURCES
    from fourfold.evaluation.tasks import PREDICTION_TASKS
    from fourfold.scenes.evaluation_tasks import SCENE_TASKS
    from fourfold.scenes.source import ScenesSource
    from fourfold.scenes.transfer_tasks import SCENE_TRANSFER_TASKS
    from fourfold.transfer.tasks import TRANSFER_TASKS

    SOURCES.register("scenes", ScenesSource())
    for prediction_task in SCENE_TASKS:
        PREDICTION_TASKS.register(prediction_task.name, prediction_task)
    for transfer_task in SCENE_TRANSFER_TASKS:
        TRANSFER_TASKS.register(transfer_task.name, transfer_task)
