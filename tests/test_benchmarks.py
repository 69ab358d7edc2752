"""How the benchmarks evaluate measurements; `make bench` measures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import all as bench
from default_step import DefaultStep, default_settings
from loading import write_shards
from model import small_config
from step import SENTINELS, deviation_from_line, released_config

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.embeddings import PatchEmbedding
from fourfold.model.flops import _per_patch
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit


def test_linear_times_with_an_offset_have_no_deviation():
    assert deviation_from_line([4, 8, 16, 32], [7.0, 9.0, 13.0, 21.0]) == pytest.approx(0, abs=1e-9)


def test_quadratic_times_deviate_more_than_allowed():
    x = np.array([4, 8, 16, 32])
    assert deviation_from_line(x, x**2) > 0.15
    assert 0 < deviation_from_line(x, x + 0.005 * x**2) < 0.15


@pytest.mark.parametrize(("ratio", "met"), [(1.6, "yes"), (1.4, "no")])
def test_a_line_shows_its_ratio_with_and_without_the_hardware(ratio, met):
    reports = {"bf16": {"ratio": ratio}, "memory": {"memory_ratio": ratio}}
    assert bench.row(bench.LINES["bf16"], reports, has_bfloat16=True)["met"] == met
    without = bench.row(bench.LINES["bf16"], reports, has_bfloat16=False)
    assert (without["met"], without["measured"]) == ("no hardware", ratio)
    assert bench.row(bench.LINES["memory"], reports, has_bfloat16=False)["met"] == "no"  # at most 0.8


def test_lines_show_why_their_measurement_failed(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit('out of luck')")
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setitem(bench.MEASUREMENTS, "growth", ("broken.py",))
    reports = bench.measure_all(["growth"], timeout=60)
    assert bench.row(bench.LINES["growth"], reports, has_bfloat16=False)["met"] == "failed: out of luck"


def test_lines_refer_to_existing_measurements_and_files():
    for line in bench.LINES.values():
        assert all((bench.FOLDER / bench.MEASUREMENTS[name][0]).is_file() for name in line.needs)


def test_the_loader_reads_the_shards_of_its_benchmark(tmp_path):
    config = released_config("Ti")
    tokens, images = write_shards(tmp_path, config, num_shards=1, per_shard=4, num_crops=2)
    masker = Masker(MaskingConfig(input_tokens=16, target_tokens=16), config, SentinelIds(3, SENTINELS))
    batch, _ = next(iter(TokenLoader(TokenSplit(tokens, images, "train"), masker, BatchOrder(4, seed=0))))
    assert batch.batch_size == 4 and batch.pixels_BHWC.shape == (4, 224, 224, 3)


def test_the_default_step_has_the_settings_of_the_default_run():
    settings, model = default_settings()
    assert (model.dim, model.encoder_depth, settings.batch_size) == (128, 4, 16)
    assert settings.optimizer.kind == "muon" and settings.precision == "fp32"


def test_the_default_step_changes_weights_and_counts_its_products():
    work = DefaultStep()
    before = work.model.encoder[0].mlp.up.weight.detach().clone()
    work.step(0)
    assert not torch.equal(before, work.model.encoder[0].mlp.up.weight)
    tokens = work.batches[0].input_keep_BN.sum() + work.batches[0].target_keep_BM.sum()
    # 6 FLOP for each weight that a token passes (Kaplan et al., 2020, arXiv 2001.08361), give or take embeddings and attention
    weights = sum(p.numel() for name, p in work.model.named_parameters() if p.ndim == 2 and "coder." in name)
    assert 0.4 < work.flops / (6 * float(tokens) * weights) < 1.6


def test_the_convolutional_stem_is_counted(monkeypatch):
    patch = PatchEmbedding(small_config(patch_stem="conv"))
    counted = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w, b=None: counted.append(x[..., 0].numel() * w.numel()) or linear(x, w, b)
    )
    patch(torch.zeros(1, 64, 64, 3), torch.tensor([0]), torch.tensor([0]))
    assert sum(counted) == _per_patch(small_config(patch_stem="conv"))
