import logging

import pytest
import torch

from fourfold.training.precision import ASSUME_BF16, autocast, compute_facts, has_fast_bfloat16, log_compute_facts

pytestmark = pytest.mark.numeric
CPU = torch.device("cpu")


@pytest.mark.parametrize(("assumed", "dtype"), [("1", torch.bfloat16), ("0", torch.float32)])
def test_auto_follows_the_environment_variable(monkeypatch, assumed, dtype):
    monkeypatch.setenv(ASSUME_BF16, assumed)
    with autocast("auto", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
@pytest.mark.parametrize("assumed", ["0", "1"])
def test_an_explicit_precision_ignores_the_environment_variable(monkeypatch, assumed, precision, dtype):
    monkeypatch.setenv(ASSUME_BF16, assumed)
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_without_the_variable_the_hardware_decides(monkeypatch):
    monkeypatch.delenv(ASSUME_BF16, raising=False)
    expected = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert has_fast_bfloat16(CPU) == expected


def test_other_values_of_the_variable_are_rejected(monkeypatch):
    monkeypatch.setenv(ASSUME_BF16, "yes")
    with pytest.raises(ValueError, match="allowed: 1"):
        has_fast_bfloat16(CPU)


def test_facts_and_log_line_contain_precision_reason_and_threads(monkeypatch, caplog):
    monkeypatch.setenv(ASSUME_BF16, "1")
    facts = compute_facts("auto", CPU)
    assert facts["precision"] == "bf16" and ASSUME_BF16 in facts["precision_reason"]
    assert facts["num_threads"] == torch.get_num_threads() and facts["instruction_set"]
    assert compute_facts("fp32", CPU)["precision"] == "fp32"
    with caplog.at_level(logging.INFO):
        log_compute_facts("pretraining", "auto", CPU)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("pretraining: precision bf16 (auto, with FOURFOLD_ASSUME_BF16=1); ")
    assert f"{torch.get_num_threads()} threads" in line
