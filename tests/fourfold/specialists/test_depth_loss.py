"""The loss of DenseDepth against closed forms, and its SSIM against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference

from fourfold.specialists.depth_loss import dense_depth_losses, structural_similarity

EVERYWHERE = torch.ones(2, 16, 16, dtype=torch.bool)


def test_a_perfect_prediction_costs_nothing():
    truth = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) * 100
    losses = dense_depth_losses(truth, truth, EVERYWHERE)
    assert {name: pytest.approx(0, abs=1e-5) for name in losses} == {name: float(loss) for name, loss in losses.items()}


def test_constants_and_slopes_cost_what_the_formulas_say():
    flat = torch.full((2, 16, 16), 20.0)
    losses = dense_depth_losses(flat + 5, flat, EVERYWHERE)
    # of two constants the SSIM is that of the means, with C1 = (0.01 · 100)² = 1
    similarity = (2 * 25 * 20 + 1) / (25**2 + 20**2 + 1)
    assert float(losses["l1"]) == pytest.approx(0.1 * 5) and float(losses["gradients"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["ssim"]) == pytest.approx((1 - similarity) / 2, abs=1e-5)
    slope = flat + 3 * torch.arange(16.0)  # 3 per pixel to the right, 0 downward
    assert float(dense_depth_losses(slope, flat, EVERYWHERE)["gradients"]) == pytest.approx(3)


def test_pixels_without_a_label_do_not_count():
    truth = torch.full((1, 16, 16), 20.0)
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    valid[:, :8] = False
    predicted = torch.where(valid, truth, 90.0).requires_grad_()
    loss = torch.stack(list(dense_depth_losses(predicted, truth, valid).values())).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert float(predicted.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("value_range", [1.0, 100.0])
def test_similarity_is_that_of_scikit_image(value_range):
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(3, 40, 32, generator=generator) * value_range
    second = (first + 0.2 * value_range * torch.rand(3, 40, 32, generator=generator)).clamp(max=value_range)
    pairs = zip(first.numpy(), second.numpy(), strict=True)
    settings = {"data_range": value_range, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    wanted = np.mean([reference(*pair, **settings) for pair in pairs])
    assert float(structural_similarity(first, second, value_range)) == pytest.approx(float(wanted), abs=1e-5)
