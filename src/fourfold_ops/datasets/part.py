"""Which part of its work a process does, handed to a node as an input, so that the node itself knows no cluster."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops import handover


class PartDataset(AbstractDataset[None, tuple[int, int]]):
    """Load gives (index, count): (0, 1), the whole, unless a runner has split the step over several processes.

    A node that takes it leaves the work of its part in its folder; what it returns is saved by the run over the whole alone.
    """

    _EPHEMERAL = True

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> tuple[int, int]:
        """Return which part is this process's, and how many there are."""
        return handover.part()

    def save(self, data: None) -> None:
        """Refuse: it is an input."""
        raise DatasetError("Which part a process does is decided by the runner: it is an input only.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
