"""The custom autograd functions of the layers against autograd of their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.layers import ALIGNMENT, FeedForward, layer_norm, linear_of_norm


def config(**changes: object) -> ModelConfig:
    modalities = (ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=9, grid=(2, 3)),)
    return ModelConfig.model_validate({"modalities": modalities, "dim": 32, "num_heads": 2} | changes)


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad((output * weight).sum(), inputs))


def plain_feed_forward(layer: FeedForward, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    gate, value = layer.up(norm(x)).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * value)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mlp_ratio", [1.5, 3.0])  # hidden widths 32, and 64
@pytest.mark.parametrize("dim", [32, 40])  # with dim 40: 40 and 80, which are padded
def test_swiglu_and_its_gradients_equal_the_definition(dim, mlp_ratio, bias):
    settings = config(dim=dim, mlp_ratio=mlp_ratio, mlp_bias=bias, norm_bias=bias)
    torch.manual_seed(0)
    layer, norm = FeedForward(settings).double(), layer_norm(dim, settings).double()
    assert (settings.mlp_width % ALIGNMENT != 0) == (dim == 40 and mlp_ratio == 1.5)
    x = torch.randn(2, 5, dim, dtype=torch.float64, requires_grad=True)
    inputs = [x, *norm.parameters(), *layer.parameters()]
    found, expected = layer(x, norm), plain_feed_forward(layer, norm, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs))


def test_frozen_weights_get_no_gradient():
    settings = config(dim=40, mlp_ratio=1.5)
    layer, norm = FeedForward(settings), layer_norm(40, settings)
    layer.up.requires_grad_(False)
    layer(torch.randn(3, 40, requires_grad=True), norm).sum().backward()
    assert layer.up.weight.grad is None and layer.down.weight.grad is not None


def test_autocast_computes_products_in_bfloat16_and_gradients_in_float32():
    settings = config(dim=40, mlp_ratio=1.5)
    torch.manual_seed(0)
    layer, norm, linear = FeedForward(settings), layer_norm(40, settings), nn.Linear(40, 24, bias=False)
    x = torch.randn(6, 40, requires_grad=True)
    inputs = [x, *norm.parameters(), *layer.parameters(), *linear.parameters()]

    def outputs() -> Tensor:
        return torch.cat([layer(x, norm), linear_of_norm(linear, norm, x)], dim=1)

    with torch.autocast("cpu", torch.bfloat16):
        rough = outputs()
    assert rough.dtype == torch.bfloat16
    for found, expected in zip(gradients(rough, inputs), gradients(outputs(), inputs), strict=True):
        assert found.dtype == torch.float32
        # bfloat16 has 8 bits: each product rounds by 2⁻⁹ of its size, and there are three in a row
        assert (found - expected).norm() < 4 * torch.finfo(torch.bfloat16).eps * expected.norm()
