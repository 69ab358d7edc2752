"""Head-by-head attention and packing against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.model.attention import attend, attention_bias
from fourfold.model.packing import Packing


def plain_attention(num_heads: int, keep: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    columns = []
    for q_head, k_head, v_head in zip(*(part.chunk(num_heads, -1) for part in (q, k, v)), strict=True):
        scores = torch.einsum("bnk,bmk->bnm", q_head, k_head) / q_head.shape[-1] ** 0.5
        columns.append(scores.masked_fill(~keep[:, 0], -torch.inf).softmax(-1) @ v_head)
    return torch.cat(columns, -1)


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 3), queries=st.integers(1, 5), keys=st.integers(1, 6), fused=st.sampled_from(["qkv", "q,kv", "q,k,v"]),
    backend=st.sampled_from(["auto", "matmul", "sdpa"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_outputs_and_gradients_equal_the_definition(heads, queries, keys, fused, backend, seed):
    generator = torch.Generator().manual_seed(seed)
    queries = keys if fused == "qkv" else queries

    def values(length: int) -> torch.Tensor:
        return torch.randn(2, length, 4 * heads, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = values(queries), values(keys), values(keys)
    keep = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    keep[..., 0] = True
    joined = {"qkv": lambda: [torch.cat([q, k, v], -1)], "q,kv": lambda: [q, torch.cat([k, v], -1)], "q,k,v": lambda: [q, k, v]}
    weight = torch.randn(2, queries, 4 * heads, generator=generator, dtype=torch.float64)
    expected = plain_attention(heads, keep, q, k, v)
    found = attend(heads, attention_bias(keep), backend, *joined[fused]())
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), (q, k, v)) for x in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_fully_masked_queries_give_finite_outputs():
    keep = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    for backend in ("matmul", "sdpa"):
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (torch.ones(1, length, 4, dtype=dtype) for length in (2, 3, 3))
            assert torch.isfinite(attend(2, attention_bias(keep), backend, q, k, v)).all()


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 4), slots=st.integers(0, 6), seed=st.integers(0, 99), ranked=st.booleans())
def test_padding_a_packed_batch_restores_rows_and_zeros(batch, slots, seed, ranked):
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(batch, slots, generator=generator) < 0.6
    rank = torch.randint(3, (batch, slots), generator=generator)
    packing = Packing.of(keep, rank if ranked else None)
    x = torch.randn(batch, slots, 2, generator=generator, dtype=torch.float64).requires_grad_()
    packed = packing.pack(x)
    assert packed.shape == (int(keep.sum()), 2)
    torch.testing.assert_close(packing.pad(packed), x * keep[..., None])
    if ranked:
        assert (packing.pack(rank).diff() >= 0).all()
    gradient = torch.autograd.grad((packing.pad(packed) ** 2).sum(), x)[0]
    torch.testing.assert_close(gradient, 2 * x * keep[..., None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_have_the_dtype_of_their_inputs(dtype):
    qkv = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    attend(2, None, "matmul", qkv).sum().backward()
    assert qkv.grad.dtype == dtype
