"""Recipes against closed forms: rates by layer, stochastic depth, mixing, LoRA, probes, averages and interpolated positions."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from fourfold.evaluation.report.page import ReportData, write_report
from fourfold.metric_log import NullMetricLog
from fourfold.model.config import ModelConfig
from fourfold.model.embeddings import position_table, sincos_2d
from fourfold.model.fourm import FourM
from fourfold.model.layers import drop_path
from fourfold.model.packing import Packing
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.run_context import RunContext
from fourfold.transfer.adaptation import add_lora, layer_rates, merge_lora, set_drop_path
from fourfold.transfer.arms import Draw, PretrainedModel, build_learner, fresh_model, optimizer_of
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import balanced, finetune, fit
from fourfold.transfer.learners import ClassLearner, TextLearner, class_loss, image_batch
from fourfold.transfer.mixing import mix, mixed_class_loss
from fourfold.transfer.recipes import ArmConfig, LoraConfig, Recipe
from fourfold.transfer.runs import Run
from fourfold.transfer.tasks import TRANSFER_TASKS, Examples
from tests.fourfold.transfer.tiny_model import tiny_model, tiny_text, transfer_data

CHOICES = {"color": ("red", "green", "blue")}
EXAMPLES = Examples(
    np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
    [],
    [],
    {"color": np.array([0, 1, 2, 0, 1, 2])},
)


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return tiny_text()


@pytest.fixture
def model(text) -> FourM:
    return FourM(tiny_model(text).config.model_copy(update={"encoder_depth": 4}))


def encode(model: FourM) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(image_batch(model, EXAMPLES.rgb)).features_BND


def test_rates_decay_from_the_head_to_the_embeddings_as_in_beit(model, text):
    rates = layer_rates(ClassLearner(model, CHOICES, 0), 0.75, with_decoder=False)
    assert rates["heads.color.weight"] == 1
    for block in range(4):
        assert rates[f"model.encoder.{block}.mlp.up.weight"] == 0.75 ** (4 - block)
    assert rates["model.patches.project.weight"] == rates["model.place.modality_ED"] == 0.75**5
    assert rates["model.encoder_norm.weight"] == 1  # the last layer before the head
    both = layer_rates(TextLearner(model, text, 8), 0.5, with_decoder=True)  # one block of the decoder follows
    assert both["model.decoder.0.mlp.up.weight"] == 0.5 and both["model.encoder.3.mlp.up.weight"] == 0.25
    assert both["model.context_projection.weight"] == 0.5 and both["model.target_tokens.weight_VD"] == 1


def test_a_step_of_adam_moves_each_weight_by_its_rate(model):
    learner = ClassLearner(model, CHOICES, 0)
    config = OptimizerConfig(kind="adamw", learning_rate=0.01, weight_decay=0, epsilon=1e-30)
    rates = layer_rates(learner, 0.5, with_decoder=False)
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    optimizer = build_optimizer(learner, config, rates=rates)
    learner.loss(EXAMPLES).backward()
    has_gradient = {name for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12}
    optimizer.step()
    for name in has_gradient:  # the first step of Adam is the rate times the sign of the gradient
        moved = (learner.get_parameter(name).detach() - before[name]).abs().max()
        assert float(moved) == pytest.approx(0.01 * rates[name], rel=1e-3), name
    assert len({round(rates[name], 6) for name in has_gradient}) == 6  # embeddings, four blocks, what follows
    assert optimizer_of(learner, config, ArmConfig(start="scratch"), 1.0).rules.keys() == {"adamw"}


@pytest.mark.parametrize("packed", [False, True])
def test_stochastic_depth_drops_samples_whole_and_keeps_the_mean(packed):
    keep_BN = torch.ones(4000, 3, dtype=torch.bool)
    if packed:
        keep_BN[::2, 1] = False
    packing = Packing.of(keep_BN)
    assert (packing.row_T is None) != packed
    torch.manual_seed(0)
    kept_BN1 = packing.pad(drop_path(torch.ones(int(keep_BN.sum()), 1), 0.2, packing))[..., 0]
    of_samples = [set(row[keep].tolist()) for row, keep in zip(kept_BN1, keep_BN, strict=True)]
    assert set().union(*of_samples) == {0.0, 1.25} and all(len(values) == 1 for values in of_samples)
    share = kept_BN1.amax(dim=1).gt(0).double().mean()
    assert float(share) == pytest.approx(0.8, abs=4 * math.sqrt(0.2 * 0.8 / 4000))


def test_stochastic_depth_grows_with_the_block_and_is_off_when_predicting(model):
    set_drop_path(model, 0.3)
    assert [block.drop_path for block in model.encoder] == pytest.approx([0, 0.1, 0.2, 0.3])
    plain = FourM(model.config)
    assert torch.equal(encode(model.eval()), encode(plain.eval()))
    assert not torch.equal(encode(model.train()), encode(plain.train()))


def test_a_lora_model_starts_as_it_was_and_merges_to_plain_weights(model):
    before = encode(model)
    names = set(model.state_dict())
    add_lora(model, LoraConfig(rank=2, scale=0.5, layers="all"), seed=0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith(("up_OR", "down_RI")) for name in trained)
    assert torch.equal(encode(model), before)
    qkv = model.encoder[0].attention.qkv
    low = qkv.parametrizations.weight[0]
    assert low.down_RI.shape == (6, 32) and low.up_OR.shape == (96, 6)  # q, k and v have rank 2 each
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.3)
    expected = qkv.parametrizations.weight.original + 0.5 * low.up_OR @ low.down_RI
    unmerged = encode(model)
    assert not torch.allclose(unmerged, before, atol=1e-3)
    merge_lora(model)
    assert set(model.state_dict()) == names and torch.equal(model.encoder[0].attention.qkv.weight, expected)
    assert torch.equal(encode(model), unmerged)


def test_the_gradient_of_lora_is_that_of_the_adapted_weight(model):
    add_lora(model, LoraConfig(rank=2), seed=0)
    learner = ClassLearner(model, CHOICES, 0)
    learner.loss(EXAMPLES).backward()
    layer = model.encoder[0].attention.out.parametrizations.weight
    assert layer.original.grad is None
    weight = (layer.original + layer[0].up_OR @ layer[0].down_RI).detach().requires_grad_()
    plain = FourM(model.config)
    plain.encoder[0].attention.out.weight = torch.nn.Parameter(weight.detach())
    ClassLearner(plain, CHOICES, 0).loss(EXAMPLES).backward()
    expected = plain.encoder[0].attention.out.weight.grad @ layer[0].down_RI.detach().T
    assert torch.allclose(layer[0].up_OR.grad, expected, atol=1e-6)


def test_mixup_blends_images_and_cutmix_pastes_a_rectangle():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mixture = mix(EXAMPLES.rgb, Recipe(mixup=0.4), rng)
        exact = mixture.share * EXAMPLES.rgb + (1 - mixture.share) * EXAMPLES.rgb[mixture.partner_B].astype(float)
        assert 0 <= mixture.share <= 1 and np.abs(mixture.rgb - exact).max() <= 0.51
    shares = []
    for _ in range(300):
        mixture = mix(EXAMPLES.rgb, Recipe(cutmix=1.0), rng)
        own, other = (mixture.rgb == rgb for rgb in (EXAMPLES.rgb, EXAMPLES.rgb[mixture.partner_B]))
        assert (own | other).all()
        shares.append(mixture.share)
        pasted_HW = ~own[0].all(axis=-1)
        rows, columns = np.flatnonzero(pasted_HW.any(axis=1)), np.flatnonzero(pasted_HW.any(axis=0))
        if len(rows):  # one rectangle, whose area is the other image's share
            assert pasted_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mixture.share == pytest.approx(1 - pasted_HW.mean())
    assert min(shares) < 0.4 and max(shares) > 0.9


def test_the_loss_of_mixed_images_is_that_of_mixed_and_smoothed_targets(model):
    learner, recipe = ClassLearner(model, CHOICES, 0).eval(), Recipe(mixup=1.0, label_smoothing=0.1)
    loss = mixed_class_loss(learner.logits, EXAMPLES, recipe, np.random.default_rng(3))
    mixture = mix(EXAMPLES.rgb, recipe, np.random.default_rng(3))
    hot_B3 = functional.one_hot(torch.from_numpy(EXAMPLES.classes["color"]), 3).double()
    target_B3 = mixture.share * hot_B3 + (1 - mixture.share) * hot_B3.flip(0)
    target_B3 = 0.9 * target_B3 + 0.1 / 3
    expected = functional.cross_entropy(learner.logits(mixture.rgb)["color"].double(), target_B3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    plain = class_loss(learner.logits(EXAMPLES.rgb), EXAMPLES)
    assert plain.item() != pytest.approx(class_loss(learner.logits(EXAMPLES.rgb), EXAMPLES, 0.1).item())


def trained(model, text, arm: ArmConfig, steps: int = 3):
    task = TRANSFER_TASKS.get("attributes")
    config = TransferConfig(arms={"one": arm}, steps=steps, batch_size=6, precision="fp32")
    classes = {name: np.arange(6) % len(values) for name, values in task.choices.items()}
    examples = Examples(EXAMPLES.rgb, [], [], classes)
    learner = build_learner(PretrainedModel(model, text), task, config, arm, Draw(examples, 0))
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    fit(learner, examples.resized(arm.image_size), config, Run("attributes", "one", 6, 0, 1.0), RunContext(0))
    changed = {name for name, tensor in learner.state_dict().items() if not torch.equal(tensor, before[name])}
    return learner, changed


def test_a_probe_trains_the_head_only(model, text):
    _, changed = trained(model, text, ArmConfig(start="pretrained", probe=True))
    assert changed and all(name.startswith(("heads.", "norm.")) for name in changed)


@pytest.mark.parametrize(
    "recipe",
    [
        {"drop_path": 0.5, "layer_decay": 0.75},
        {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
        {"lora": {"rank": 2}, "drop_path": 0.5},
        {"average_decay": 0.9, "pooling": "mean"},
        {"image_size": 48},
    ],
)
def test_equal_seeds_give_equal_weights(model, text, recipe):
    arm = ArmConfig(start="pretrained", **recipe)
    (first, changed), (second, _) = (trained(model, text, arm) for _ in range(2))
    torch.manual_seed(99)  # what torch draws elsewhere has no influence
    third, _ = trained(model, text, arm)
    weights, others, thirds = (learner.state_dict() for learner in (first, second, third))
    assert changed and all(torch.equal(weights[n], others[n]) and torch.equal(weights[n], thirds[n]) for n in weights)
    plain, _ = trained(model, text, ArmConfig(start="pretrained"))
    assert any(n not in weights or not torch.equal(t, weights[n]) for n, t in plain.state_dict().items())


def test_the_averaged_weights_lie_between_those_of_the_steps(model, text):
    start, _ = trained(model, text, ArmConfig(start="pretrained"), steps=1)
    averaged, _ = trained(model, text, ArmConfig(start="pretrained", average_decay=0.999), steps=1)
    name = "heads.shape.weight"
    draw = Draw(EXAMPLES, 0)
    task = TRANSFER_TASKS.get("attributes")
    arm = ArmConfig(start="pretrained")
    initial = build_learner(PretrainedModel(model, text), task, TransferConfig(arms={"one": arm}), arm, draw)
    decay = 2 / 11  # min(decay, (1 + t) / (10 + t)) after the first step
    expected = decay * initial.get_parameter(name) + (1 - decay) * start.get_parameter(name)
    assert torch.allclose(averaged.get_parameter(name), expected, atol=1e-7)


def test_positions_are_interpolated_as_in_the_code_of_4m(model):
    config = model.config
    same = config.at_image_size("rgb", 32, 32)
    assert same is config
    larger = config.at_image_size("rgb", 56, 40)
    assert larger.modality("rgb").grid == (7, 5) and larger.modality("rgb").interpolated_from == (4, 4)
    table_PD = sincos_2d(4, 4, config.dim, config.image_temperature)
    square = table_PD.reshape(1, 4, 4, config.dim).permute(0, 3, 1, 2)  # the steps of interpolate_rgb_pos_emb_fm
    expected = functional.interpolate(square, size=(7, 5), mode="bicubic", align_corners=False)
    expected = expected.permute(0, 2, 3, 1).flatten(1, 2)[0]
    found = position_table(larger.modality("rgb"), larger)
    assert torch.equal(found, expected)
    assert "interpolated_from" not in config.model_dump_json()
    assert ModelConfig.model_validate_json(larger.model_dump_json()) == larger
    back = larger.at_image_size("rgb", 32, 32)  # the grid of pretraining has the table of pretraining, to the bit
    assert torch.equal(position_table(back.modality("rgb"), back), table_PD)
    with pytest.raises(ValueError, match="Choose multiples of 8 pixels"):
        config.at_image_size("rgb", 30, 32)


def test_a_pretrained_model_takes_larger_images_and_keeps_its_weights(model, text):
    larger = fresh_model(PretrainedModel(model, text), "pretrained", 0, image_size=64)
    assert larger.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, larger.state_dict()[name]) for name, tensor in model.state_dict().items())
    features = larger.encode(image_batch(larger, EXAMPLES.resized(64).rgb)).features_BND
    assert features.shape == (6, 64, 32) and bool(features.isfinite().all())


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"start": "pretrained", "probe": True, "lora": {}}, "Give one of them"),
        ({"start": "pretrained", "probe": True, "drop_path": 0.1}, "`probe` does not train the blocks"),
        ({"start": "pretrained", "lora": {}, "layer_decay": 0.75}, "`lora` keeps the weights"),
        ({"start": "baseline", "layer_decay": 0.75, "pooling": "mean"}, "no `layer_decay`, `pooling`"),
        ({"start": "scratch", "probe": True}, "no weights to keep"),
        ({"start": "scratch", "network": "resnet18"}, "only an arm with `start: baseline`"),
    ],
)
def test_recipes_that_contradict_themselves_are_errors(arm, message):
    with pytest.raises(ValueError, match=message):
        ArmConfig(**arm)


def test_arms_are_named_in_results_and_errors(model, text, tmp_path):
    config = TransferConfig(
        tasks=("vqa", "attributes"),
        arms={"full": {"start": "pretrained"}, "probe": {"start": "pretrained", "probe": True}},
        num_labels=(8, 12, 16), num_seeds=1, steps=1, batch_size=8, num_selection=10, num_test=10,
        lr_multipliers={"full": (1.0,)},
    )  # fmt: skip
    assert config.lr_multipliers_of("full") == (1.0,) and config.lr_multipliers_of("probe") == (0.3, 0.8)
    data = transfer_data(tmp_path / "data")
    logged: list[str] = []

    class Log(NullMetricLog):
        def log_file(self, path, name):
            logged.append(name)

    found = finetune(PretrainedModel(model, text), data, config, RunContext(0, tmp_path / "runs", Log()))
    assert logged == ["finetuning/label_efficiency.png"]  # MLflow refuses a name without a folder
    assert set(found["transfer"]["attributes_8"]["mean_accuracy"]) == {"full", "probe"}
    assert set(found["transfer"]["vqa_8"]["accuracy"]) == {"full"}  # a text task has no head to probe
    (equal,) = found["label_efficiency"]["attributes"]["equal_quality"]
    assert (equal["reference"], equal["reference_labels"]) == ("probe", 16)
    with Image.open(tmp_path / "runs/label_efficiency.png") as chart:
        assert chart.size[0] > chart.size[1] > 300 and len(chart.convert("RGB").getcolors(1 << 20)) > 10
    page = write_report(ReportData({"transfer": found["transfer"]}, transfer_tasks=found["tasks"]))
    assert '<th scope="col">probe</th>' in page and "label-curves" in page and " probe with 16" in page
    with pytest.raises(ValueError, match=r"Unknown arm in lr_multipliers 'prob'. Did you mean 'probe'"):
        TransferConfig(arms=config.arms, lr_multipliers={"prob": (1.0,)})
    with pytest.raises(ValueError, match=r"lora.rank 20 makes .*qkv of rank 60; 32 are allowed"):
        add_lora(FourM(model.config), LoraConfig(rank=20), 0)


def test_few_shots_are_equally_many_of_each_class():
    classes = np.random.default_rng(0).choice(4, size=200, p=[0.6, 0.2, 0.15, 0.05])
    order = balanced(classes)
    assert sorted(order) == list(range(200))
    for shots in (1, 3, 5):
        assert np.bincount(classes[order[: 4 * shots]], minlength=4).tolist() == [shots] * 4
    own = order[classes[order] == 1]
    assert (np.diff(own) > 0).all()  # within a class as drawn
