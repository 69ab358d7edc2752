import pytest
import torch
from torch import nn
from torch.optim._muon import muon as torch_muon  # functions: the classes import the compiler, which takes seconds
from torch.optim.adamw import adamw as torch_adamw

from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.training.newton_schulz import NEWTON_SCHULZ, orthogonalize
from fourfold.training.optimizers import AdamW, Muon, OptimizerConfig, block_matrices, build_optimizer
from fourfold.training.precision import subnormals_as_zero


@pytest.mark.parametrize(("steps", "smallest"), [(3, 0.75), (5, 0.65)])
@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40), (2, 48, 16)])
def test_orthogonalization_keeps_singular_vectors_and_brings_values_near_one(shape, steps, smallest):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    result = orthogonalize(1e-7 * left * torch.linspace(1, 20, left.shape[-1]) @ right, steps)
    diagonal = left.mT @ result @ right.mT
    values = diagonal.diagonal(dim1=1, dim2=2)
    assert values.min() > smallest and values.max() < 1.25
    assert (diagonal - torch.diag_embed(values)).abs().max() < 1e-4


@pytest.mark.parametrize("columns", [12, 16, 30])  # plain up to 18, Gram matrices beyond
@pytest.mark.parametrize("steps", [3, 5])
def test_both_forms_equal_the_iteration_in_float64(steps, columns):
    torch.manual_seed(0)
    matrices = torch.randn(4, 12, columns, dtype=torch.float64)
    plain = matrices / (matrices @ matrices.mT).norm(dim=(1, 2), keepdim=True).sqrt()
    for a, b, c in NEWTON_SCHULZ[steps]:
        gram = plain @ plain.mT
        plain = a * plain + (b * gram + c * gram @ gram) @ plain
    assert torch.allclose(orthogonalize(matrices.float(), steps).double(), plain, atol=2e-5)
    assert torch.allclose(orthogonalize(matrices.bfloat16(), steps).double(), plain, atol=0.1)


@pytest.mark.parametrize(("steps", "smallest"), [(3, 0.02)])
def test_minimax_polynomials_map_their_interval_near_one(steps, smallest):
    value = torch.linspace(smallest, 1, 5000, dtype=torch.float64)
    for a, b, c in NEWTON_SCHULZ[steps]:
        value = a * value + b * value**3 + c * value**5
    assert (value - 1).abs().max() < 0.1


def with_gradients(parameters, gradients):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()


def named(parameters):
    return {str(index): parameter for index, parameter in enumerate(parameters)}


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1e10])
def test_orthogonalization_ignores_scale_even_where_products_underflow(scale):
    matrices = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(0))
    with subnormals_as_zero():
        found = orthogonalize(matrices * scale)
    torch.testing.assert_close(found, orthogonalize(matrices), rtol=1e-4, atol=1e-5)
    assert not orthogonalize(torch.zeros(1, 4, 6)).any()


def test_subnormals_are_restored_after_the_context():
    smallest = torch.full((1,), 1e-39)
    assert smallest * 1.0 > 0
    with subnormals_as_zero():
        with subnormals_as_zero():
            assert smallest * 1.0 == 0
        assert smallest * 1.0 == 0
    assert smallest * 1.0 > 0


@pytest.mark.parametrize("steps", [3, 5])
def test_muon_moves_as_torch_muon(steps):
    torch.manual_seed(0)
    shapes = [(16, 16), (16, 16), (40, 16), (16, 40)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    starts, theirs = [[parameter.detach().clone() for parameter in ours] for _ in range(2)]
    momenta = [torch.zeros(shape) for shape in shapes]
    mine = Muon(named(ours), {str(i): 1 for i in range(4)}, OptimizerConfig(muon_weight_decay=0.1, newton_schulz_steps=steps))
    settings = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "eps": 1e-7, "ns_steps": 5}
    for _ in range(5):
        gradients = [torch.randn(shape) for shape in shapes]
        with_gradients(ours, gradients)
        mine.step(0.5)
        torch_muon(
            theirs, gradients, momenta, **settings, ns_coefficients=NEWTON_SCHULZ[5][0], adjust_lr_fn=None, has_complex=False
        )
    for parameter, twin, start in zip(ours, theirs, starts, strict=True):  # torch is approximate too, in another way
        step, expected = (parameter.detach() - start).flatten(), (twin - start).flatten()
        assert torch.cosine_similarity(step, expected, dim=0) > 0.97
        assert 0.85 < step.norm() / expected.norm() < 1.25


def test_adamw_moves_as_torch_adamw_without_decay_of_vectors():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))]
    theirs = [parameter.detach().clone() for parameter in ours]
    state = (
        [[torch.zeros_like(p)] for p in theirs],
        [[torch.zeros_like(p)] for p in theirs],
        [[torch.zeros(())] for p in theirs],
    )
    mine = AdamW(named(ours), OptimizerConfig(learning_rate=0.1, weight_decay=0.3))
    settings = {"lr": 0.05, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "amsgrad": False, "maximize": False, "foreach": False}
    for _ in range(5):
        gradients = [torch.randn(parameter.shape) for parameter in ours]
        with_gradients(ours, gradients)
        mine.step(0.5)
        for index, decay in enumerate((0.3, 0.0)):
            mean, square, count = (kind[index] for kind in state)
            torch_adamw([theirs[index]], [gradients[index]], mean, square, [], count, **settings, weight_decay=decay)
    assert all(torch.allclose(parameter, twin) for parameter, twin in zip(ours, theirs, strict=True))


def test_matrices_in_one_parameter_are_orthogonalized_separately():
    torch.manual_seed(0)
    scales = torch.tensor([100.0, 1.0, 0.01]).repeat_interleave(8)
    gradient = torch.randn(24, 8) * scales[:, None]
    fused, parts = nn.Parameter(torch.zeros_like(gradient)), [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    with_gradients([fused], [gradient]), with_gradients(parts, gradient.chunk(3))
    Muon({"0": fused}, {"0": 3}, OptimizerConfig()).step(1.0)
    Muon(named(parts), {str(i): 1 for i in range(3)}, OptimizerConfig()).step(1.0)
    assert torch.allclose(fused, torch.cat(parts), atol=1e-6, rtol=0)


def tiny_model(gated=True) -> FourM:
    modalities = (ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=11, grid=(2, 2)),)
    return FourM(ModelConfig(modalities=modalities, dim=16, encoder_depth=1, decoder_depth=2, num_heads=2, gated_mlp=gated))


def test_muon_updates_block_matrices_and_adamw_the_rest():
    model = tiny_model()
    splits = block_matrices(model)
    assert {name for name, p in model.named_parameters() if p.ndim == 2 and ("encoder." in name or "decoder." in name)} == set(
        splits
    )
    assert {name: split for name, split in splits.items() if name.startswith("encoder")} == {
        "encoder.0.attention.qkv.weight": 6,  # two heads
        "encoder.0.attention.out.weight": 1,
        "encoder.0.mlp.up.weight": 2,
        "encoder.0.mlp.down.weight": 1,
    }
    assert splits["decoder.1.cross_attention.kv.weight"] == 4
    assert block_matrices(tiny_model(gated=False))["encoder.0.mlp.up.weight"] == 1
    optimizer = build_optimizer(model, OptimizerConfig())
    assert len(optimizer.parameters) == len({id(p) for p in optimizer.parameters}) == len(list(model.parameters()))
    assert set(optimizer.rules["muon"].parameters) == set(splits)


def test_state_tensors_restore_the_optimizer():
    models = [tiny_model(), tiny_model()]
    optimizers = [build_optimizer(model, OptimizerConfig()) for model in models]

    def step(which):
        for index, parameter in enumerate(models[which].parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        optimizers[which].step(0.5)

    step(0)
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_tensors(optimizers[0].state_tensors())
    step(0), step(1)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
