"""A registered model of scans: MLflow loads it in a process that knows no plug-in."""

from pathlib import Path
from typing import Self

from fourfold.generation.serving import NUM_AXES, ServedModel
from fourfold.medical.modalities import KIND, register


class ServedScanModel(ServedModel):
    """A model whose modalities are kinds of scans. It is no medical device."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model of a folder; see `ServedModel.load`."""
        register()
        NUM_AXES[KIND] = 2
        return super().load(folder)
