"""All entries of the plug-in in the registries of the library."""

from functools import cache

from fourfold.data.ingestion.sources import register_source
from fourfold.evaluation.tasks import PREDICTION_TASKS
from fourfold.images import PAINTERS
from fourfold.labelers.kinds import KINDS
from fourfold.labelers.registry import register as register_labeler
from fourfold.medical.labelers import MaskLabeler, ScanLabeler
from fourfold.medical.modalities import KIND, SCANS, register_scan_modality
from fourfold.medical.source import MedicalSource
from fourfold.medical.tasks import scan_task

SOURCE = MedicalSource()


def register() -> None:
    """Add the source, the kinds of scans with their labelers and tasks, and the labeler of masks; once more changes nothing."""
    register_source(SOURCE)
    KINDS[SOURCE.kind] = None  # its labelers are registered here
    register_labeler(MaskLabeler)
    for name, about in SCANS.items():
        register_scan(name, about)


def register_scan(name: str, about: str) -> None:
    """Add a kind of scan: a label with its tokens, the labeler `{kind: medical}` and the evaluation task `rgb->NAME`.

    Args:
        name: of the label; its tokens are `tok_NAME`.
        about: what it shows, for people.

    Raises:
        ValueError: the name is taken.
    """
    PAINTERS[KIND] = lambda value, drawing: value[..., None].repeat(3, 2)
    register_scan_modality(name, about)
    register_labeler(_labeler(name, about))
    task = scan_task(name, about)
    PREDICTION_TASKS.register(task.name, task)


@cache
def _labeler(name: str, about: str) -> type[ScanLabeler]:
    """Return the labeler of a kind of scan, the same class each time."""
    return type(f"Scan_{name}", (ScanLabeler,), {"name": f"medical_{name}", "title": about, "modality": name})
