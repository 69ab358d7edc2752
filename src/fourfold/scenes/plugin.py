"""All entries of the plug-in in the registries of the library."""

from fourfold.data.ingestion.sources import register_source
from fourfold.evaluation.tasks import PREDICTION_TASKS
from fourfold.labelers.registry import register as register_labeler
from fourfold.scenes.evaluation_tasks import SCENE_TASKS
from fourfold.scenes.source import ScenesSource
from fourfold.scenes.teachers.labelers import SCENE_LABELERS
from fourfold.scenes.transfer_tasks import SCENE_TRANSFER_TASKS
from fourfold.transfer.tasks import TRANSFER_TASKS


def register() -> None:
    """Add the source, the labelers, the prediction tasks and the transfer tasks."""
    register_source(ScenesSource())
    for labeler in SCENE_LABELERS:
        register_labeler(labeler)
    for prediction_task in SCENE_TASKS:
        PREDICTION_TASKS.register(prediction_task.name, prediction_task)
    for transfer_task in SCENE_TRANSFER_TASKS:
        TRANSFER_TASKS.register(transfer_task.name, transfer_task)
