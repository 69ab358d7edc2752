"""Input of a node that can be split over processes: which share of the work this process does."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops import handover


class WorkSplitDataset(AbstractDataset[None, tuple[int, int]]):
    """Loads (index, count): (0, 1), all of the work, unless a runner has split the step over several processes.

    A node with this input writes the results of its share to its folder. What the node returns is saved only by the run over
    all shares.
    """

    _EPHEMERAL = True

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> tuple[int, int]:
        """Return the index of this process's share, and the number of shares."""
        return handover.part()

    def save(self, data: None) -> None:
        """Raise DatasetError: this dataset is an input only."""
        raise DatasetError("The runner decides the work split; this dataset is an input only.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
