"""Properties of the transformer that hold for any weights."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.digests import record_digests
from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.cross_entropy import Head, cross_entropies
from fourfold.model.files import load_model, save_model
from fourfold.model.fourm import FourM
from fourfold.model.layers import DecoderBlock, EncoderBlock

BIASES = ("qkv_bias", "projection_bias", "mlp_bias", "norm_bias")
SHAPES = {
    "swiglu": {},
    "gelu": {"gated_mlp": False, "qk_norm": True, **dict.fromkeys(BIASES, True)},
    "stem": {"patch_stem": "conv"},
}


def config(**changes) -> ModelConfig:
    modalities = (
        ModalityConfig(name="rgb", kind="pixels", grid=(2, 3)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=9, grid=(2, 3)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=12, max_length=8),
    )
    shape = {"dim": 32, "encoder_depth": 2, "decoder_depth": 2, "num_heads": 2, "patch_size": 8, "embedding_std": 0.5}
    return ModelConfig.model_validate({"modalities": modalities} | shape | changes)


def some_batch(seed: int = 0, batch: int = 3, inputs: int = 7, targets: int = 9, empty: float = 0.2) -> MaskedBatch:
    generator = torch.Generator().manual_seed(seed)

    def side(first: int, slots: int) -> tuple[torch.Tensor, ...]:
        modality = torch.randint(first, 3, (batch, slots), generator=generator)
        modality[torch.rand(batch, slots, generator=generator) < empty] = PADDING_MODALITY
        keep = modality >= 0
        place, token = (torch.randint(high, (batch, slots), generator=generator) * keep for high in (6, 9))
        return modality, place, token

    modality, place, token = side(0, inputs)
    target_modality, target_place, target = side(1, targets)
    target_modality[0, 0] = 1
    before = torch.where(target_modality == 2, target.roll(1, 1), 0)
    pixels = torch.randint(256, (batch, 16, 24, 3), generator=generator).to(torch.uint8)
    return MaskedBatch(modality, place, token, target_modality, target_place, before, target, pixels)


def hidden(model: FourM, batch: MaskedBatch) -> torch.Tensor:
    with torch.no_grad():
        return model.decode(batch, model.encode(batch))


def replaced(batch: MaskedBatch, **changes) -> MaskedBatch:
    return dataclasses.replace(batch, **changes)


@pytest.fixture(scope="module", params=SHAPES)
def model(request) -> FourM:
    return FourM(config(**SHAPES[request.param]), seed=3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), empty=st.sampled_from([0.0, 0.3, 0.9]))
def test_empty_slots_and_other_samples_do_not_change_a_sample(model, seed, empty):
    batch = some_batch(seed, empty=empty)
    together = hidden(model, batch)
    for row in range(batch.batch_size):
        keep_in, keep_out = batch.input_keep_BN[row], batch.target_keep_BM[row]
        alone = MaskedBatch(
            *(getattr(batch, f"input_{name}_BN")[row : row + 1, keep_in] for name in ("modality", "position", "token")),
            *(getattr(batch, f"target_{name}_BM")[row : row + 1, keep_out] for name in ("modality", "position", "input", "id")),
            batch.pixels_BHWC[row : row + 1],
        )
        torch.testing.assert_close(hidden(model, alone)[0], together[row, keep_out], atol=2e-5, rtol=1e-4)


def test_the_order_of_inputs_does_not_matter(model):
    batch = some_batch(1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    names = ("input_modality_BN", "input_position_BN", "input_token_BN")
    shuffled = replaced(batch, **{name: getattr(batch, name)[:, order] for name in names})
    keep = batch.target_keep_BM
    torch.testing.assert_close(hidden(model, shuffled)[keep], hidden(model, batch)[keep], atol=2e-5, rtol=1e-4)


def test_text_targets_are_causal_and_grid_targets_see_their_grid(model):
    modality = torch.tensor([[1, 1, 1, 2, 2, 2, 2]])
    place = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    batch = replaced(
        some_batch(2)[:1], target_modality_BM=modality, target_position_BM=place,
        target_input_BM=torch.tensor([[0, 0, 0, 5, 6, 7, 8]]), target_id_BM=place,
    )  # fmt: skip
    before = hidden(model, batch)
    changed = hidden(model, replaced(batch, target_input_BM=torch.tensor([[0, 0, 0, 5, 6, 9, 8]])))
    difference = (before - changed).abs().amax(-1)[0]
    assert difference[:5].max() < 1e-5
    assert difference[5:].min() > 1e-3
    moved = hidden(model, replaced(batch, target_position_BM=torch.tensor([[0, 1, 5, 0, 1, 2, 3]])))
    difference = (before - moved).abs().amax(-1)[0]
    assert difference[:3].min() > 1e-4
    assert difference[3:].max() < 1e-5


def test_pixels_outside_the_visible_patches_have_no_influence(model):
    batch = some_batch(3)
    used = torch.zeros(3, 6, dtype=torch.bool)
    sample, slot = (batch.input_modality_BN == 0).nonzero(as_tuple=True)
    used[sample, batch.input_position_BN[sample, slot]] = True
    pixel_used = used.view(3, 2, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)[..., None]
    noise = torch.randint(256, batch.pixels_BHWC.shape, generator=torch.Generator().manual_seed(9)).to(torch.uint8)
    other = replaced(batch, pixels_BHWC=torch.where(pixel_used, batch.pixels_BHWC, noise))
    keep = batch.target_keep_BM
    torch.testing.assert_close(hidden(model, other)[keep], hidden(model, batch)[keep])


@pytest.mark.parametrize("backend", ["matmul", "sdpa"])
def test_gradients_equal_finite_differences(backend):
    model = FourM(config(attention=backend), seed=4).double()
    batch = some_batch(5)
    batch = replaced(batch, pixels_BHWC=batch.pixels_BHWC.double() / 128 - 1)
    model(batch).total.backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            losses = []
            for step in (1e-5, -2e-5):
                parameter.add_(direction, alpha=step)
                losses.append(model(batch).total.item())
            parameter.add_(direction, alpha=1e-5)
        expected = (parameter.grad * direction).sum().item()
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_bfloat16_losses_and_gradients_are_close_to_float32():
    model, batch = FourM(config(), seed=4), some_batch(5)
    exact = model(batch).total
    exact.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch).total
    rough.backward()
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).norm() <= 0.1 * gradient.norm() + 1e-6


def some_heads(seed: int = 0) -> tuple[dict[str, torch.Tensor], list[Head]]:
    """Hidden states, a table and target ids in float64; the second of three heads has no target."""
    generator = torch.Generator().manual_seed(seed)
    heads = [Head("a", 0, 5, 4), Head("absent", 5, 2, 0), Head("b", 7, 3, 3)]
    hidden, table = (torch.randn(rows, 6, generator=generator, dtype=torch.float64) for rows in (7, 10))
    target = torch.tensor([0, 1, 4, 3, 2, 0, 2])
    return {"hidden_TD": hidden.requires_grad_(), "table_VD": table.requires_grad_(), "target_T": target}, heads


def plain_cross_entropies(hidden_TD: torch.Tensor, table_VD: torch.Tensor, target_T: torch.Tensor) -> list[torch.Tensor]:
    a, b = hidden_TD[:4] @ table_VD[:5].T, hidden_TD[4:] @ table_VD[7:].T
    return [F.cross_entropy(a, target_T[:4], reduction="none"), F.cross_entropy(b, target_T[4:], reduction="none")]


def test_losses_are_means_over_modalities_or_over_tokens():
    values, heads = some_heads()
    a, b = plain_cross_entropies(**values)
    found = {loss: cross_entropies(**values, heads=heads, loss=loss, num_modalities=2) for loss in ("modality", "token")}
    torch.testing.assert_close(found["modality"].total, (a.mean() + b.mean()) / 2)
    torch.testing.assert_close(found["token"].total, torch.cat([a, b]).mean())
    assert found["token"].num_tokens == {"a": 4, "b": 3}
    torch.testing.assert_close(found["token"].per_modality, {"a": a.mean().detach(), "b": b.mean().detach()})
    with pytest.raises(ValueError, match="no target token"):
        cross_entropies(values["hidden_TD"][:0], values["table_VD"], values["target_T"][:0], heads[1:2], "modality", 1)


@pytest.mark.parametrize("at_once", [1, 10, 1000])
@pytest.mark.parametrize("loss", ["modality", "token"])
def test_gradients_equal_those_of_plain_cross_entropy(monkeypatch, at_once, loss):
    monkeypatch.setattr("fourfold.model.cross_entropy.LOGITS_AT_ONCE", at_once)  # a row at a time, two or three rows, all
    values, heads = some_heads()
    a, b = plain_cross_entropies(**values)
    plain = (a.mean() + b.mean()) / 2 if loss == "modality" else torch.cat([a, b]).mean()
    leaves = (values["hidden_TD"], values["table_VD"])
    expected = torch.autograd.grad(3 * plain, leaves)
    found = cross_entropies(**values, heads=heads, loss=loss, num_modalities=len(heads)).total
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * found, leaves), expected)


def test_losses_of_parts_add_up_to_the_loss_of_the_step():
    values, heads = some_heads()
    whole = cross_entropies(**values, heads=heads, loss="modality", num_modalities=2)
    parts = []
    for rows, counts in ((slice(0, 3), (3, 0, 0)), (slice(3, 7), (1, 0, 3)), (slice(7, 7), (0, 0, 0))):
        own = [dataclasses.replace(head, num_targets=count) for head, count in zip(heads, counts, strict=True)]
        part = {name: value[rows] if name != "table_VD" else value for name, value in values.items()}
        parts.append(cross_entropies(**part, heads=own, loss="modality", num_modalities=2, totals={"a": 4, "b": 3}))
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    for name, mean in whole.per_modality.items():
        torch.testing.assert_close(sum(part.per_modality[name] for part in parts), mean)


def test_initial_weights_depend_on_seed_and_name_only():
    same, again, other = FourM(config(), seed=1), FourM(config(), seed=1), FourM(config(), seed=2)
    deeper = dict(FourM(config(decoder_depth=3), seed=1).named_parameters())
    for (name, a), b, c in zip(same.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, deeper[name])
        assert a.std() == 0 or not torch.equal(a, c)
    qkv = same.encoder[0].attention.qkv.weight
    assert qkv.abs().max() <= (6 / 64) ** 0.5  # Xavier of (32, 32) each, not of the fused (96, 32)
    assert qkv.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert same.target_tokens.weight_VD.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_saved_model_loads_equal_and_saves_the_same_bytes(tmp_path, model):
    save_model(model, tmp_path / "a")
    loaded = load_model(tmp_path / "a")
    assert loaded.config == model.config
    torch.testing.assert_close(hidden(loaded, some_batch()), hidden(model, some_batch()), atol=0, rtol=0)
    save_model(loaded, tmp_path / "b")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loading_a_damaged_model_names_its_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        load_model(tmp_path)
    save_model(FourM(config()), tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-7])
    with pytest.raises(ValueError, match=r"model.safetensors changed after it was written.*dvc checkout"):
        load_model(tmp_path)
    record_digests(tmp_path, "model.safetensors")
    with pytest.raises(ValueError, match="does not hold a complete model"):
        load_model(tmp_path)
    (tmp_path / "digests.json").unlink()
    with pytest.raises(ValueError, match="has no digest"):
        load_model(tmp_path)


def test_contradictory_settings_are_rejected():
    with pytest.raises(ValueError, match="multiple of `num_heads`"):
        config(num_heads=3)
    with pytest.raises(ValueError, match="give `max_length` to sequences and vectors"):
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=9, grid=(2, 2))
    with pytest.raises(ValueError, match="Did you mean 'caption'"):
        config().index("captoin")


@pytest.mark.parametrize(
    ("size", "millions"), [("Ti", 24.9), ("S", 59.0), ("B", 198.8), ("L", 705.7), ("XL", 2823.0)]
)  # 4M (arXiv 2312.06647), appendix
def test_named_sizes_have_the_parameter_counts_of_the_paper(size, millions):
    one = ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=1, grid=(1, 1))
    shape = ModelConfig(modalities=(one,), size=size)
    with torch.device("meta"):
        blocks = {EncoderBlock(shape): shape.encoder_depth, DecoderBlock(shape): shape.decoder_depth}
    count = sum(depth * sum(parameter.numel() for parameter in block.parameters()) for block, depth in blocks.items())
    count += 2 * shape.dim + shape.dim * (shape.dim + 1)  # two norms, and the projection into the decoder's context
    assert count / 1e6 == pytest.approx(millions, rel=2e-3)
    assert shape.dim // shape.num_heads == 64


def test_settings_override_a_size_and_unknown_sizes_are_rejected():
    assert ArchitectureConfig.model_validate({"size": "B", "decoder_depth": 3}).decoder_depth == 3
    with pytest.raises(ValueError, match="Ti, S, B, L, XL"):
        ArchitectureConfig.model_validate({"size": "M"})


@pytest.mark.parametrize("shape", SHAPES)
def test_recomputing_blocks_keeps_losses_and_gradients(shape):
    results = []
    for recompute in (False, True):
        model = FourM(config(**SHAPES[shape], recompute_blocks=recompute), seed=3).train()
        loss = model(some_batch()).total
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)
