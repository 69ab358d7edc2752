"""`kedro generate --view`: frames of a camera, answered one after the other in their shape and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from fourfold.generation.any_to_any import AnyToAny
    from fourfold.modalities.class_table import ClassTable

VIEWS = ("squash", "crop", "windows")


class Inputs(Protocol):
    """The part of the options of `kedro generate` that is read here."""

    @property
    def given(self) -> dict[str, Any]:
        """Paths by label."""

    def load_model(self) -> "AnyToAny":
        """Load the model."""

    def class_table(self) -> "ClassTable | None":
        """Return the classes of the model."""


@dataclass(frozen=True)
class FrameRequest:
    """What is wanted of each frame; `budget_ms` is None without a budget."""

    targets: Sequence[str]
    view: str | None
    preset: str
    seed: int
    budget_ms: float | None

    @property
    def is_wanted(self) -> bool:
        """Whether one of the options of frames was given."""
        return self.view is not None or self.budget_ms is not None


def write_frames(inputs: Inputs, request: FrameRequest, mask: Path | None, out: Path) -> None:
    """Answer frames and print counts and times; raises UsageError for inputs that do not go with frames."""
    from fourfold.evaluation.frames.answering import Frames, answer_frames
    from fourfold.evaluation.frames.predicting import FrameSettings
    from fourfold.training.precision import default_device

    given = inputs.given
    if "rgb" not in given:
        raise click.UsageError("--view and --budget need --image: a frame, or a folder of frames.")
    if mask or given.keys() - {"rgb", "depth"}:
        raise click.UsageError("--view and --budget go with --image and --given depth=LIDAR only. Leave the others out.")
    settings = FrameSettings(request.targets, request.view or VIEWS[0], request.preset, request.seed)  # type: ignore[arg-type]
    frames = Frames(given["rgb"], out, settings, given.get("depth"), request.budget_ms)
    model = inputs.load_model()
    model.model.to(default_device())  # as the tokenizers are
    counts, times = answer_frames(model, frames, inputs.class_table())
    for reason, count in counts.items():
        click.echo(f"{count:,} {reason}")
    for line in times.lines() if len(times) else ():
        click.echo(line)
