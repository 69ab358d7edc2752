"""The transformer against golden vectors that the 4M code computed with the same weights."""

import json

import numpy as np
import pytest
import torch

from fourfold.model.embeddings import sincos_1d, sincos_2d
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import DECODER_LAYERS, ENCODER_LAYERS, load_released
from tests.support.golden import REFERENCE, golden_batch

HIDDEN, LOSS, GRADIENT = {"atol": 5e-5, "rtol": 0}, {"atol": 1e-5, "rtol": 0}, {"atol": 1e-7, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model() -> FourM:
    return load_released(REFERENCE / "fourm_tiny.safetensors")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "fourm_tiny_io.npz") as file:
        return dict(file)


@pytest.mark.parametrize("prefix", ["", "edge/"])
@pytest.mark.parametrize("backend", ["matmul", "sdpa"])
def test_hidden_states_and_logits_equal_the_golden_vectors(model, arrays, prefix, backend):
    batch = golden_batch(arrays, prefix, model)
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = backend
    with torch.no_grad():
        encoding = model.encode(batch)
        hidden = model.decode(batch, encoding)
        logits, targets = model.target_logits(hidden, batch)
    keep, wanted = batch.input_keep_BN, batch.target_keep_BM
    torch.testing.assert_close(encoding.features_BND[keep], torch.tensor(arrays[f"{prefix}enc/out"])[keep], **HIDDEN)
    torch.testing.assert_close(encoding.context_BND[keep], torch.tensor(arrays[f"{prefix}dec/context"])[keep], **HIDDEN)
    torch.testing.assert_close(hidden[wanted], torch.tensor(arrays[f"{prefix}dec/out"])[wanted], **HIDDEN)
    for name in logits:
        torch.testing.assert_close(targets[name], torch.tensor(arrays[f"{prefix}targets/{name}"]), **LOSS)
        torch.testing.assert_close(logits[name], torch.tensor(arrays[f"{prefix}logits/{name}"]), **HIDDEN)


@pytest.mark.parametrize("prefix", ["", "edge/"])
@pytest.mark.parametrize(("ours", "theirs"), [("reference_modality", "loss_mod"), ("reference_token", "loss_token")])
def test_losses_equal_the_golden_values(model, arrays, prefix, ours, theirs):
    with torch.no_grad():
        losses = model(golden_batch(arrays, prefix, model), loss=ours)
    torch.testing.assert_close(losses.total, torch.tensor(arrays[f"{prefix}{theirs}/total"]), **LOSS)
    for name, value in losses.per_modality.items():
        torch.testing.assert_close(value, torch.tensor(arrays[f"{prefix}{theirs}/{name}"]), **LOSS)


def test_gradient_norms_equal_those_of_the_tied_model(model, arrays):
    model.zero_grad()
    model(golden_batch(arrays, "", model), loss="reference_modality").total.backward()
    expected = json.loads(str(arrays["grad_norms_tied_json"]))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    compared = 0
    for side, layers in (("encoder", ENCODER_LAYERS), ("decoder", DECODER_LAYERS)):
        for block in range(2):
            for ours, theirs in layers.items():
                names = [f"{side}.{block}.{name}.weight" for name in theirs]
                if names[0] in expected:
                    parts = gradients[f"{side}.{block}.{ours}.weight"].chunk(len(names))
                    torch.testing.assert_close([p.norm().item() for p in parts], [expected[n] for n in names], **GRADIENT)
                    compared += len(names)
    sizes = model.target_tokens.sizes
    for name, part in zip(model.config.names, gradients["target_tokens.weight_VD"].split(sizes), strict=True):
        if part.numel():
            assert part.norm().item() == pytest.approx(expected[f"decoder_embeddings.{name}.token_emb.weight"], rel=1e-4)
    for name, part in zip(model.config.names, gradients["place.modality_ED"], strict=True):
        assert part.norm().item() == pytest.approx(expected[f"encoder_embeddings.{name}.mod_emb"], rel=1e-4)
    assert gradients["mask_token_D"].norm().item() == pytest.approx(expected["mask_token"], rel=1e-4)
    assert compared == 38


def test_position_tables_equal_the_golden_tables():
    with np.load(REFERENCE / "positions.npz") as file:
        tables = {name: torch.tensor(file[name])[0] for name in file.files}
    torch.testing.assert_close(sincos_1d(16, 64), tables["pos1d_len16_dim64"], atol=1e-5, rtol=0)
    torch.testing.assert_close(sincos_2d(4, 4, 64), tables["pos2d_h4_w4_dim64"], atol=1e-5, rtol=0)
    torch.testing.assert_close(sincos_2d(14, 14, 384), tables["pos2d_h14_w14_dim384"], atol=1e-5, rtol=0)


def test_positions_of_rectangular_grids_are_row_major():
    with np.load(REFERENCE / "positions.npz") as file:
        column_by_column = torch.tensor(file["pos2d_h3_w5_dim64"])[0]
    halves = column_by_column.unflatten(0, (5, 3)).transpose(0, 1).flatten(0, 1).chunk(2, dim=1)
    torch.testing.assert_close(sincos_2d(3, 5, 64), torch.cat(halves[::-1], dim=1), atol=1e-5, rtol=0)
