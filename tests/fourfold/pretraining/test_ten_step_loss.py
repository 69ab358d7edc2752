"""A refactor reproduces a stored curve of ten pretraining steps; a deliberate change of the arithmetic updates the file.

`python tests/fourfold/pretraining/test_ten_step_loss.py` writes `ten_step_loss.json` again. Say in the CHANGELOG why.

Tolerance: the bytes are the same on one machine only, since other instruction sets and numbers of threads add up in another
order. The script also measures what rounding may change: it multiplies every initial weight by 1 + ε z with z from N(0, 1) and
ε = 2⁻²³ (float32), for eight draws, and stores the largest relative change of a loss. Machines may differ by eight times that:
each of the some hundred operations of a step rounds, not the weights alone, and √(some hundred) is about eight and more.
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import torch

from fourfold.model.fourm import FourM
from fourfold.pretraining import pretrain as module
from fourfold.storage import read_json
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

pytestmark = pytest.mark.numeric
STORED = Path(__file__).with_name("ten_step_loss.json")
STEPS, DRAWS, MARGIN = 10, 8, 8


def ten_step_loss(root: Path) -> list[float]:
    """Return the training losses of the first ten steps of a tiny run in float32, in nats per token."""
    config = tiny_config(total_tokens=STEPS * 3 * 18, log_every=1, validate_every=STEPS)
    module.pretrain(*write_world(root / "world"), TinyTokenizers(), config, RunContext(7, root / "run"))
    return [entry["loss"] for entry in read_json(root / "run" / "history.json") if "loss" in entry]


def test_ten_steps_have_the_stored_losses(tmp_path):
    stored = read_json(STORED)
    losses = ten_step_loss(tmp_path)
    assert len(losses) == STEPS
    assert losses == pytest.approx(stored["losses"], rel=MARGIN * stored["rounding"])


def perturbed(draw: int) -> type[FourM]:
    """Return a model class whose initial weights differ by rounding."""

    class Perturbed(FourM):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            generator = torch.Generator().manual_seed(draw)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(1 + 2**-23 * torch.randn(parameter.shape, generator=generator))

    return Perturbed


def main() -> None:
    """Write the stored curve and the measured effect of rounding."""
    with tempfile.TemporaryDirectory() as folder:
        losses, worst = ten_step_loss(Path(folder) / "exact"), 0.0
        for draw in range(DRAWS):
            with mock.patch.object(module, "FourM", perturbed(draw)):
                changed = ten_step_loss(Path(folder) / str(draw))
            worst = max(worst, *(abs(a / b - 1) for a, b in zip(changed, losses, strict=True)))
    STORED.write_text(json.dumps({"losses": losses, "rounding": worst}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
