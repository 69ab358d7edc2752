"""What the benchmarks say of a measurement; the measurements themselves are theirs (`make bench`)."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import all as bench
from loading import write_shards
from step import SENTINELS, deviation_from_line, released_config

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit


def test_times_on_a_line_do_not_deviate_from_it_whatever_they_cost_at_zero():
    assert deviation_from_line([4, 8, 16, 32], [7.0, 9.0, 13.0, 21.0]) == pytest.approx(0, abs=1e-9)


def test_times_that_grow_with_the_square_deviate_by_more_than_is_allowed():
    x = np.array([4, 8, 16, 32])
    assert deviation_from_line(x, x**2) > 0.15
    assert 0 < deviation_from_line(x, x + 0.005 * x**2) < 0.15


@pytest.mark.parametrize(("ratio", "met"), [(1.6, "yes"), (1.4, "no")])
def test_a_line_is_met_from_its_number_on_and_without_the_hardware_the_ratio_is_shown_all_the_same(ratio, met):
    reports = {"bf16": {"ratio": ratio}, "memory": {"memory_ratio": ratio}}
    assert bench.row(bench.LINES["bf16"], reports, has_bfloat16=True)["met"] == met
    without = bench.row(bench.LINES["bf16"], reports, has_bfloat16=False)
    assert (without["met"], without["reached"]) == ("no hardware", ratio)
    assert bench.row(bench.LINES["memory"], reports, has_bfloat16=False)["met"] == "no"  # at most 0.8


def test_a_measurement_that_fails_is_named_in_its_lines(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit('out of luck')")
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setitem(bench.MEASUREMENTS, "growth", ("broken.py",))
    reports = bench.measure_all(["growth"], longest=60)
    assert bench.row(bench.LINES["growth"], reports, has_bfloat16=False)["met"] == "failed: out of luck"


def test_every_line_needs_measurements_that_there_are_of_files_that_there_are():
    for line in bench.LINES.values():
        assert all((bench.FOLDER / bench.MEASUREMENTS[name][0]).is_file() for name in line.needs)


def test_the_loader_reads_the_shards_that_its_benchmark_writes(tmp_path):
    config = released_config("Ti")
    tokens, images = write_shards(tmp_path, config, num_shards=1, per_shard=4, num_crops=2)
    masker = Masker(MaskingConfig(input_tokens=16, target_tokens=16), config, SentinelIds(3, SENTINELS))
    batch, _ = next(iter(TokenLoader(TokenSplit(tokens, images, "train"), masker, BatchOrder(4, seed=0))))
    assert batch.batch_size == 4 and batch.pixels_BHWC.shape == (4, 224, 224, 3)
