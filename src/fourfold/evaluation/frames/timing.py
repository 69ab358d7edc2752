"""Times of frames against a budget: percentiles, and how many frames were late."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from fourfold.training.precision import compute_facts

STEPS = 100  # per millisecond: times are counted to 0.01 ms, so memory does not grow with the frames
PERCENTILES = (50, 95)


class Times:
    """Milliseconds of many frames by what they were spent on, as counts of rounded values."""

    def __init__(self, budget_ms: float | None = None) -> None:
        self.budget_ms, self.late = budget_ms, 0
        self._counts: dict[str, Counter[int]] = {}

    def add(self, spent_ms: Mapping[str, float]) -> bool:
        """Add one frame; return whether it was late. `total` is what the budget is for."""
        for name, value in spent_ms.items():
            self._counts.setdefault(name, Counter())[round(value * STEPS)] += 1
        is_late = self.budget_ms is not None and spent_ms["total"] > self.budget_ms
        self.late += is_late
        return is_late

    def __len__(self) -> int:
        return self._counts["total"].total() if self._counts else 0

    def percentile(self, name: str, percent: float) -> float:
        """Return the smallest time that at least `percent` of the frames did not exceed (nearest rank)."""
        counts = self._counts[name]
        values = sorted(counts)
        reached = np.cumsum([counts[value] for value in values])
        return values[int(np.searchsorted(reached, percent / 100 * reached[-1]))] / STEPS

    def summary(self) -> dict[str, Any]:
        """Return percentiles by what the time was spent on, the share of late frames, and device, threads and precision."""
        spent = {
            name: {f"p{percent}": self.percentile(name, percent) for percent in PERCENTILES} | {"max": max(counts) / STEPS}
            for name, counts in self._counts.items()
        }
        budget = {} if self.budget_ms is None else {"budget_ms": self.budget_ms, "late": self.late}
        share = {} if self.budget_ms is None else {"late_share": round(self.late / max(1, len(self)), 6)}
        return {"frames": len(self), "ms": spent, **budget, **share, "machine": compute_facts("fp32")}

    def lines(self) -> list[str]:
        """Return the summary as lines of a table."""
        found = self.summary()
        machine = found["machine"]
        lines = [f"{machine['device']}, {machine['num_threads']} threads, {machine['precision']}; one frame at a time"]
        lines.append(f"{'milliseconds':14}{'p50':>10}{'p95':>10}{'max':>10}")
        lines += [f"{name:14}{row['p50']:10.2f}{row['p95']:10.2f}{row['max']:10.2f}" for name, row in found["ms"].items()]
        if self.budget_ms is not None:
            share = 100 * found["late_share"]
            lines.append(f"budget {self.budget_ms:g} ms: {self.late:,} of {len(self):,} frames late ({share:.1f} %)")
        return lines
