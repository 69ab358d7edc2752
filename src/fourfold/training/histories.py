"""The curves of finished trainings, as `train` leaves them on disk."""

from pathlib import Path

from fourfold.digests import is_intact
from fourfold.storage import read_json
from fourfold.training.loop import HISTORY_FILE


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the logged values of a training, `{"step": ..., name: value}` each; empty if its file is absent or changed."""
    intact = is_intact(path.parent, path.name, remedy="The report goes without its curve.")
    history: list[dict[str, float]] = read_json(path) if intact else []
    return history


def read_histories(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return the curves of all trainings below a folder, by the path of each, e.g. `rgb` or `rgb/diffusion`."""
    found = {path.parent.relative_to(folder).as_posix(): read_history(path) for path in sorted(folder.rglob(HISTORY_FILE))}
    return {name: history for name, history in found.items() if history}
