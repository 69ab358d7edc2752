"""How the benchmarks evaluate measurements; `make bench` measures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import all as bench
import gpu
import latency
import released
import sparse_depth
from default_step import DefaultStep, default_settings
from loading import write_shards
from model import small_config
from step import SENTINELS, deviation_from_line, released_config

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import TOKEN_MODALITIES
from fourfold.model.embeddings import PatchEmbedding
from fourfold.model.flops import _per_patch
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit
from fourfold.tokenizers.released import visual
from tests.support.released_set import NOT_IN_4M, make_released_set, released_size
from tests.support.tiny_any_to_any import tiny_any_to_any


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
    assert (model.dim, model.encoder_depth, settings.batch_size) == (128, 4, 32)
    assert settings.optimizer.kind == "muon" and settings.precision == "fp32"


def test_the_default_step_changes_weights_and_counts_its_products():
    work = DefaultStep()
    before = work.model.encoder[0].mlp.up.weight.detach().clone()
    with work.steps() as step:
        step(0)
    assert not torch.equal(before, work.model.encoder[0].mlp.up.weight)
    tokens = work.batches[0].input_keep_BN.sum() + work.batches[0].target_keep_BM.sum()
    # 6 FLOP for each weight that a token passes (Kaplan et al., 2020, arXiv 2001.08361), give or take embeddings and attention
    weights = sum(p.numel() for name, p in work.model.named_parameters() if p.ndim == 2 and "coder." in name)
    assert 0.4 < work.flops / (6 * float(tokens) * weights) < 1.6


@pytest.mark.timeout(300)
def test_the_gpu_script_executes_every_section_on_a_cpu():
    found = gpu.run_all(gpu.Place.of("cpu", 250), list(gpu.SECTIONS))
    assert list(found) == list(gpu.SECTIONS)
    assert [values for values in found.values() if "failed" in values] == []
    rows = {row["name"]: row for row in gpu.table(found, on_gpu=False)}
    assert {row["met"] for row in rows.values()} == {"", "yes"}
    assert {name for name, row in rows.items() if row["met"]} == {
        name for name in gpu.EXPECTATIONS if not name.startswith(gpu.OF_SPEED)
    }
    assert gpu.missing(found, list(gpu.SECTIONS), on_gpu=False) == []
    assert rows["generation/same_tokens_share"]["value"] == 1 and rows["compile/graphs"]["value"] >= 2
    assert rows["steps/tiny/mfu"]["value"] > 0 and rows["resume/same_bytes_twice"]["value"] == 1


def test_the_gpu_script_reports_a_failing_section_and_executes_the_others(monkeypatch, capsys):
    def broken(place):
        raise RuntimeError("CUDA error:\n out of luck")

    monkeypatch.setattr(gpu, "SECTIONS", {"parity": broken, "steps": lambda place: {"B/mfu": 0.4, "L/mfu": 0.5}})
    place = gpu.Place.of("cpu", 60)
    found = gpu.run_all(place, ["parity", "steps"])
    assert found["parity"]["failed"] == "RuntimeError: CUDA error: out of luck"
    assert found["parity"]["where"].startswith("test_benchmarks.py:")
    met = {row["name"]: row["met"] for row in gpu.table(found, on_gpu=True)}
    assert (met["steps/B/mfu"], met["steps/L/mfu"]) == ("NO", "yes")
    assert [name.partition("/")[0] for name in gpu.missing(found, ["parity", "steps"], on_gpu=True)] == ["parity"] * 2
    late = gpu.run_all(gpu.Place.of("cpu", 0), ["steps"])
    assert late["steps"]["failed"] == "no time left"


def test_a_released_set_is_imported_and_used(tmp_path, monkeypatch):
    monkeypatch.setattr(visual, "NUM_DECODING_STEPS", 1)  # to save time
    rows = released.measure(make_released_set(tmp_path / "released"))
    assert list(rows) == ["load the released files", *released.CALLS, "import: write our folder", "load our folder"]
    assert all(row["peak_megabytes"] > 50 for row in rows.values())


def test_the_set_of_released_size_has_the_released_modalities():
    scale = released_size()
    grids = {modality: config.codebook_size for modality, config in scale.tokenizers.values()}
    assert grids["tok_rgb@224"] == 16384 and grids["tok_semseg@224"] == 4096 and grids["tok_dinov2_global"] == 8192
    names = {name.partition("@")[0] for name in (*grids, *scale.others, *scale.texts)}
    learned = {name for name, entry in TOKEN_MODALITIES.items() if entry.kind in ("grid", "sequence") and entry.released_tokens}
    assert names == (learned - NOT_IN_4M) | {"t5_caption"} and len(names) == 18


def test_the_convolutional_stem_is_counted(monkeypatch):
    patch = PatchEmbedding(small_config(patch_stem="conv"))
    counted = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w, b=None: counted.append(x[..., 0].numel() * w.numel()) or linear(x, w, b)
    )
    patch(torch.zeros(1, 64, 64, 3), torch.tensor([0]), torch.tensor([0]))
    assert sum(counted) == _per_patch(small_config(patch_stem="conv"))


def test_latency_of_frames_is_a_table_of_all_rows(tmp_path, capsys):
    tiny_any_to_any().save(tmp_path / "model")
    found = latency.main(["--model", str(tmp_path / "model"), "--size", "20x52", "--rounds", "3", "--batches", "1,4"])
    assert list(found["rows"]) == [
        "all, greedy", "all, one_pass", "all, one_pass, sparse depth", "depth alone", "semseg alone", "det alone", "batch of 1",
        "batch of 4",
    ]  # fmt: skip
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in found["rows"].values())
    of_four = found["rows"]["batch of 4"]
    assert of_four["per_second"] == pytest.approx(4000 / of_four["p50_ms"], rel=0.01)
    printed = capsys.readouterr().out
    assert (
        printed.startswith("cpu, ") and "threads" in printed and "fp32" in printed and "20 x 52 pixels, view windows" in printed
    )


def test_sparse_depth_of_the_latency_is_as_sparse_as_lidar():
    depth = latency.sparse_depth((200, 300))
    assert 0.04 < (depth > 0).mean() < 0.06 and not depth[:100].any()


def test_sparse_depth_is_compared_in_given_and_other_patches(tmp_path, monkeypatch):
    tiny_any_to_any().save(tmp_path / "04_models/any_to_any")
    rng = np.random.default_rng(0)
    values = {"rgb": rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8), "depth": np.exp(rng.uniform(0, 4, (3, 16, 16)))}
    monkeypatch.setattr(sparse_depth, "read", lambda folder, name, count: values[name])
    found = sparse_depth.main(["--data", str(tmp_path)])
    assert found["given_share"] == 0.5 and set(found["abs_rel"]) == {"as they are", "a tenth as bright", "noise"}
    for row in found["abs_rel"].values():
        for errors in row.values():
            assert errors["all"] == pytest.approx((errors["given"] + errors["others"]) / 2, abs=1e-3)
    truth = np.full((1, 2, 2), 4.0)
    assert sparse_depth.errors(np.array([[[4, 5], [2, 4]]]), truth, np.array([[[True, True], [False, False]]])) == {
        "all": 0.1875, "given": 0.125, "others": 0.25,
    }  # fmt: skip
