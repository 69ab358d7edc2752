"""The table: what is counted and measured, and what it shows for given numbers."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fourfold.specialists.answering import Way
from fourfold.specialists.code_size import code_lines, count_lines, own_modules
from fourfold.specialists.costs import generalist_costs, measure_costs
from fourfold.specialists.figures import chart_png
from fourfold.specialists.measuring import MemoryMeter, StepClock, measure_latencies
from fourfold.specialists.scoring import combinations, over_seeds
from fourfold.specialists.table import as_html, as_markdown, comparison, logged

SOURCE = '''"""A module.

Of several lines.
"""

import os  # used


def f(x):
    """Return a text."""
    # why
    return (
        "a text"

        + x
    )
'''
METRICS = {
    "rows": {
        "unet_depth": {
            "title": "U-Net",
            "kind": "specialist",
            "targets": ["depth"],
            "trained_with": ["unet_depth"],
            "size": {"networks": 1, "parameters": 1_500_000, "code_modules": 4, "code_lines": 321},
            "scores": {"rgb->depth": {"abs_rel": {"value": 0.034, "ci95": [0.033, 0.035]}}},
        },
        "generalist": {
            "title": "4M",
            "kind": "generalist",
            "targets": ["depth"],
            "trained_with": ["generalist"],
            "size": {"networks": 2, "parameters": 3_000_000, "code_modules": 70, "code_lines": 7_000},
            "scores": {"rgb->depth": {"abs_rel": {"value": 0.029, "ci95": None}}},
        },
        "trivial": {"title": "trivial answer", "kind": "baseline", "targets": ["depth"], "size": {}, "scores": {}},
    },
    "order": ["unet_depth", "generalist", "trivial"],
    "metrics": {"rgb->depth": [{"name": "abs_rel", "title": "AbsRel", "description": "error", "lower_is_better": True}]},
    "reference": "exact truth",
    "references": {},
    "samples": 600,
}
COSTS = {
    "latency": {"unet_depth": {"depth": 4.04}, "generalist": {"depth": 40.1, "all": 90.0}},
    "training": {
        "unet_depth": [{"seconds": 10.0, "peak_megabytes": 80.0}, {"seconds": 14.0, "peak_megabytes": 90.0}],
        "generalist": [{"seconds": 600.0, "peak_megabytes": 700.0}],
    },
    "machine": {"device": "cpu", "num_threads": 2, "instruction_set": "AVX2"},
}


def test_lines_with_code_are_counted_without_docstrings_comments_and_blank_lines():
    assert code_lines(SOURCE) == 6  # import, def, and four lines of the return statement
    assert code_lines("") == 0


def test_code_that_every_way_needs_and_other_specialists_are_not_counted():
    found = own_modules(["fourfold.specialists.dense"])
    assert {"fourfold.specialists.dense", "fourfold.specialists.unet", "fourfold.specialists.depth_loss"} <= found
    assert not any(name.startswith(("fourfold.data", "fourfold.training", "fourfold.specialists.detectors")) for name in found)
    generalist = own_modules(["fourfold.generation.any_to_any", "fourfold.pretraining.pretrain"])
    assert {"fourfold.model.fourm", "fourfold.masking.masker"} <= generalist
    assert not any("released" in name.split(".") for name in generalist)
    assert count_lines(generalist) > count_lines(found) > 100


def test_the_time_of_a_step_is_the_median_between_marks_and_survives_a_gap():
    times = iter([0.0, 10.0, 19.0, 100.0, 112.0])
    clock = StepClock(clock=lambda: next(times))
    assert clock.seconds_per_step() is None
    for step in (0, 5, 10, 15, 20):  # 2.0, 1.8, 16.2 (another program) and 2.4 s a step
        clock.mark(step)
    assert clock.seconds_per_step() == pytest.approx(2.2)


def test_the_rise_of_the_memory_is_measured_above_the_start():
    meter = MemoryMeter()
    block = torch.zeros(64 * 2**20 // 4).fill_(1.0)
    high = meter.peak_megabytes()
    del block
    assert 60 < high < 90
    assert MemoryMeter().peak_megabytes() < 10


def test_latencies_are_measured_in_turn():
    order: list[str] = []
    found = measure_latencies({name: lambda name=name: order.append(name) for name in ("a", "b")}, rounds=3)
    assert order == ["a", "a", "b", "b", *("a", "b") * 3] and set(found) == {"a", "b"}


def way(name: str, *targets: str) -> Way:
    return Way(name, name, "specialist", targets, lambda rgb, wanted: {t: f"{name} {t}" for t in wanted}, trained_with=(name,))


def test_each_detector_makes_a_set_of_specialists_with_the_others():
    ways = [way("d", "depth"), way("s", "semseg"), way("one", "det"), way("two", "det")]
    found = combinations(ways)
    assert [each.trained_with for each in found] == [("d", "s", "one"), ("d", "s", "two")]
    assert found[1].answer(np.zeros(1), ("det", "depth")) == {"det": "two det", "depth": "d depth"}
    assert combinations(ways[2:]) == [] and [each.name for each in combinations(ways[:2])] == ["together"]


def test_seeds_are_averaged():
    tables = [{"rgb->det": {"ap50": {"value": v, "ci95": [v - 0.1, v + 0.1]}}} for v in (0.5, 0.7)]
    assert over_seeds(tables[:1]) == {"rgb->det": {"ap50": {"value": 0.5, "ci95": [0.4, 0.6]}}}
    merged = over_seeds(tables)["rgb->det"]["ap50"]
    assert (
        merged["value"] == pytest.approx(0.6)
        and merged["std"] == pytest.approx(0.02**0.5, abs=1e-6)
        and merged["values"] == [0.5, 0.7]
    )


def test_the_table_shows_every_number_and_a_dash_for_what_there_is_not():
    table = comparison(METRICS, COSTS)
    text = as_markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("|  | AbsRel ↓ | networks | parameters |")
    assert rows[2] == "| U-Net | 0.034 (0.033–0.035) | 1 | 1.50 M | 12 | 90 | 4.0 | – | 4 | 321 |"
    assert rows[3] == "| 4M | 0.029 | 2 | 3.00 M | 600 | 700 | 40.1 | 90.0 | 70 | 7,000 |"
    assert rows[4] == "| trivial answer | – | – | – | – | – | – | – | – | – |"
    assert "600 test samples against exact truth" in text
    page = as_html(table, b"1", b"2")
    assert all(f"<td>{cell}</td>" in page for cell in ("0.034 (0.033–0.035)", "7,000")) and "data:image/png;base64,MQ==" in page
    assert logged(METRICS, COSTS)["generalist/latency_ms/depth"] == 40.1
    assert logged(METRICS, COSTS)["unet_depth/rgb_to_depth/abs_rel"] == 0.034


def test_the_time_of_the_tokenizers_is_scaled_to_the_machine_of_the_measurement():
    probed = {"steps": 10, "seconds": 400.0, "peak_megabytes": 50.0}
    found = generalist_costs(probed, {"pretraining": 200.0, "tokenizer_training": 50.0})
    assert found["seconds"] == 500.0 and found["tokenizer_seconds"] == 100.0 and found["peak_megabytes"] == 50.0
    assert generalist_costs(probed, {})["seconds"] is None and generalist_costs(None, {}) is None


def test_the_chart_is_an_image_with_equal_bytes():
    table = comparison(METRICS, COSTS)
    first, second = chart_png(METRICS, table), chart_png(METRICS, table)
    assert first == second and Image.open(io.BytesIO(first)).size[0] > 300


def test_costs_cover_every_task_and_all_together():
    class Trained:
        class config:  # noqa: N801
            latency_rounds = 1

            @staticmethod
            def chosen():
                return []

    looked_up = replace(way("c", "depth"), is_timed=False)
    found = measure_costs(
        [way("a", "depth"), way("b", "depth", "det"), looked_up], Trained(), np.zeros((4, 4, 3), np.uint8), None
    )
    assert {row: set(latencies) for row, latencies in found["latency"].items()} == {
        "a": {"depth"},
        "b": {"depth", "det", "all"},
    }
