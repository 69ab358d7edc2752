"""Heads of maps: against torchvision's block and closed forms, and learned end to end."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.models.convnext import CNBlock

from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext
from fourfold.transfer.arms import Draw, build_learner
from fourfold.transfer.backbones import FourMBackbone
from fourfold.transfer.baselines import ClassBaseline, image_network, muon_matrices
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune, fit
from fourfold.transfer.head_sizes import BoxHeadConfig, DenseHeadConfig, HeadsConfig
from fourfold.transfer.heads.convnext import ConvNeXtBlock, ConvNeXtHead
from fourfold.transfer.heads.dense import DepthHead, SegmentationHead, berhu
from fourfold.transfer.heads.detection import BoxHead, SimplePyramid
from fourfold.transfer.heads.dpt import DptHead
from fourfold.transfer.recipes import ArmConfig
from fourfold.transfer.runs import Run
from fourfold.transfer.tasks import TRANSFER_TASKS, Examples, load_examples

SMALL = HeadsConfig(
    dense=DenseHeadConfig(width=16, depth=1),
    boxes=BoxHeadConfig(width=32, hidden=64, pool_side=5, anchor_cells=4, proposals=50, sampled_boxes=32),
)
NOTHING = Examples(np.zeros((0, 32, 32, 3), np.uint8), [], [], {})


def test_the_block_is_that_of_torchvision_without_layer_scale():
    torch.manual_seed(0)
    block, reference = ConvNeXtBlock(8), CNBlock(8, layer_scale=1.0, stochastic_depth_prob=0.0)
    names = {"0": "mix", "2": "norm", "3": "up", "5": "down"}
    ours = block.state_dict()
    state = {f"block.{index}.{kind}": ours[f"{name}.{kind}"] for index, name in names.items() for kind in ("weight", "bias")}
    reference.load_state_dict({**state, "layer_scale": torch.ones(8, 1, 1)})
    x = torch.randn(2, 8, 5, 6)
    assert torch.allclose(block(x), reference(x), atol=1e-6)


def test_the_head_predicts_a_square_for_each_patch_in_its_place():
    head = ConvNeXtHead(4, 3, DenseHeadConfig(width=8, depth=0, predictions_per_patch=9))
    maps = torch.zeros(1, 4, 2, 5)
    maps[0, :, 1, 3] = 1
    changed = (head([maps]) != head([torch.zeros(1, 4, 2, 5)]))[0].any(dim=0)
    assert changed.shape == (6, 15) and changed[3:6, 9:12].all() and changed.sum() == 9
    with pytest.raises(ValueError, match="must be a square number"):
        DenseHeadConfig(predictions_per_patch=8)


def test_pixels_of_no_class_do_not_count():
    head = SegmentationHead(3).build(4, SMALL, NOTHING)
    maps = [torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))]
    truth = np.random.default_rng(0).integers(0, 3, (2, 16, 16)).astype(np.uint8)
    logits = functional.interpolate(head.head(maps), (16, 16), mode="bilinear")
    kept = truth.copy()
    truth[:, :5] = 255
    expected = functional.cross_entropy(logits[:, :, 5:], torch.from_numpy(kept[:, 5:].astype(np.int64)))
    assert head.loss(maps, list(truth)).item() == pytest.approx(expected.item(), rel=1e-5)
    assert head.loss(maps, list(np.full_like(truth, 255))).item() == 0
    found = head.predict(maps, (16, 16))
    assert found[0].shape == (16, 16) and found[0].dtype == np.uint8


def test_the_reverse_huber_loss_is_linear_and_then_quadratic():
    error = torch.tensor([0.1, -0.2, 0.5, -1.0, 9.0])
    keep = torch.tensor([True, True, True, True, False])
    limit = 0.2
    expected = [0.1, 0.2, (0.25 + limit**2) / (2 * limit), (1 + limit**2) / (2 * limit)]
    assert float(berhu(error, keep)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(berhu(error, torch.zeros(5, dtype=torch.bool))) == 0


def test_depth_is_standardized_by_its_labels_and_stays_inside_the_limits():
    depth = np.full((2, 8, 8), 3.0, np.float16)
    depth[0], depth[:, 0], depth[1, 1] = 5.0, 12.0, np.nan  # the far plane and pixels without a measurement
    module = DepthHead(max_depth=12).build(4, SMALL, Examples(np.zeros((2, 8, 8, 3)), [], [], {}, list(depth)))
    pixels = np.concatenate([np.full(56, 5.0), np.full(48, 3.0)])
    assert (module.mean, module.deviation) == pytest.approx((pixels.mean(), pixels.std()))
    maps = [torch.full((2, 4, 2, 2), 1e4)]
    assert math.isfinite(module.loss(maps, list(depth)).item())
    assert all(image.min() > 0 and image.max() <= 12 for image in module.predict(maps, (8, 8)))


@pytest.mark.parametrize(
    ("start", "name", "metric", "better"),
    [("pretrained", "segmentation", "miou", 0.55), ("baseline", "depth", "delta1", 0.9)],
)
def test_a_few_maps_can_be_memorized(world, pretrained, start, name, metric, better):
    task, arm = TRANSFER_TASKS.get(name), ArmConfig(start=start)
    examples = load_examples(task, world, "transfer_train", max_examples=4, seed=0)
    assert len(examples.labels) == 4 and examples.labels[0].shape == (32, 32)
    optimizer = OptimizerConfig(learning_rate=3e-3, muon_learning_rate=0.02)
    config = TransferConfig(
        tasks=(name,), arms={"one": arm}, steps=60, batch_size=4, heads=SMALL, precision="fp32", optimizer=optimizer
    )
    learner = build_learner(pretrained, task, config, arm, Draw(examples, 0))
    before = task.score(learner.eval().predict(examples), examples)[metric]
    fit(learner, examples, config, Run(name, "one", 4, 0, 1.0), RunContext(0))
    with torch.inference_mode():
        after = task.score(learner.eval().predict(examples), examples)
    assert after[metric] > max(better, before), (before, after)


def test_maps_are_compared_at_another_image_size_too(world, pretrained, tmp_path):
    config = TransferConfig(
        tasks=("segmentation", "depth"),
        arms={"pretrained": {"start": "pretrained"}, "larger": {"start": "pretrained", "image_size": 48},
              "baseline": {"start": "baseline", "image_size": 48}},
        num_labels=(8,), num_seeds=1, steps=1, batch_size=8, num_selection=10, num_test=10, heads=SMALL,
    )  # fmt: skip
    found = finetune(pretrained, world, config, RunContext(0, tmp_path))["transfer"]
    assert set(found["segmentation_8"]["miou"]) == {"pretrained", "larger", "baseline"}
    assert set(found["depth_8"]) == {"delta1", "abs_rel"}


def test_dpt_reads_four_blocks_and_predicts_a_square_of_sixteen(pretrained):
    config = pretrained.model.config
    model = FourM(ModelConfig.model_validate(config.model_dump() | {"encoder_depth": 8}))
    backbone = FourMBackbone(model.eval())
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    maps = backbone(rgb, 4)
    assert [one.shape for one in maps] == [(2, 32, 4, 4)] * 4 and not model.encoder[1]._forward_hooks
    assert torch.equal(maps[-1], backbone(rgb, 1)[0])
    with torch.no_grad():  # the second of eight blocks does not depend on the ones behind it, and the others do
        model.encoder[3].mlp.down.weight.zero_()
    changed = [not torch.equal(one, other) for one, other in zip(maps, backbone(rgb, 4), strict=True)]
    assert changed == [False, True, True, True]
    head = DptHead(32, 3, DenseHeadConfig(kind="dpt", width=16))
    leaves = [one.detach().requires_grad_() for one in maps]
    found = head(leaves)
    assert found.shape == (2, 3, 64, 64)
    found.square().mean().backward()
    assert all(leaf.grad is not None and bool(leaf.grad.abs().sum() > 0) for leaf in leaves)
    assert head([one[..., :3, :3] for one in maps]).shape == (2, 3, 48, 48)  # an odd number of rows
    with pytest.raises(ValueError, match="reads 4 blocks of the encoder, which has 1"):
        FourMBackbone(pretrained.model)(rgb, 4)


def test_the_pyramid_has_four_sizes_and_boxes_return_to_their_place():
    levels = SimplePyramid(8, 16)(torch.randn(2, 8, 6, 4))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [(16, 24, 16), (16, 12, 8), (16, 6, 4), (16, 3, 2)]
    module = BoxHead(("cone", "box")).build(8, SMALL, NOTHING)
    boxes = {
        "instances": [
            {"box": [0.25, 0.5, 0.75, 1.0], "class_name": "box", "score": 1.0},
            {"box": [0.25, 0.5, 0.25, 1.0], "class_name": "cone", "score": 1.0},  # no area
            {"box": [0.0, 0.0, 0.5, 0.5], "class_name": "sphere", "score": 1.0},  # not one of the classes
        ]
    }
    target = module.target(boxes, (96, 64), torch.device("cpu"))
    assert target["boxes"].tolist() == [[16, 48, 48, 96]] and target["labels"].tolist() == [2]
    found = module._instances({**target, "scores": torch.tensor([0.5])}, torch.tensor([64, 96, 64, 96]))
    assert found == {"instances": [{"box": [0.25, 0.5, 0.75, 1.0], "class_name": "box", "score": 0.5}]}
    nothing = {"instances": []}
    maps = [torch.randn(2, 8, 6, 4)]
    assert math.isfinite(float(module.loss(maps, [nothing, nothing]).detach()))
    assert len(module.eval().predict(maps, (24, 16))) == 2


def test_a_few_boxes_can_be_memorized(world, pretrained):
    task, arm = TRANSFER_TASKS.get("detection"), ArmConfig(start="baseline")
    examples = load_examples(task, world, "transfer_train", max_examples=3, seed=0)
    optimizer = OptimizerConfig(learning_rate=2e-3, muon_learning_rate=0.02)
    config = TransferConfig(
        tasks=("detection",), arms={"one": arm}, steps=60, batch_size=3, heads=SMALL, precision="fp32", optimizer=optimizer
    )
    learner = build_learner(pretrained, task, config, arm, Draw(examples, 0))
    with torch.inference_mode():
        before = task.score(learner.eval().predict(examples), examples)["ap50"]
    fit(learner, examples, config, Run("detection", "one", 3, 0, 1.0), RunContext(0))
    with torch.inference_mode():
        after = task.score(learner.eval().predict(examples), examples)
    assert before < 0.2 and after["ap50"] > 0.5, (before, after)


def test_equal_seeds_give_equal_detectors(world, pretrained):
    task, arm = TRANSFER_TASKS.get("detection"), ArmConfig(start="pretrained")
    examples = load_examples(task, world, "transfer_train", max_examples=4, seed=0)
    config = TransferConfig(tasks=("detection",), arms={"one": arm}, steps=2, batch_size=4, heads=SMALL, precision="fp32")
    weights = []
    for global_seed in (1, 2):  # boxes are sampled from the seed of the run, not from the state of torch
        torch.manual_seed(global_seed)
        learner = build_learner(pretrained, task, config, arm, Draw(examples, 0))
        fit(learner, examples, config, Run("detection", "one", 4, 0, 1.0), RunContext(0))
        weights.append(learner.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize(("network", "width", "shape"), [("resnet18", 512, (4, 4)), ("vit", 192, (8, 8))])
def test_networks_of_torchvision_are_baselines(network, width, shape):
    torch.manual_seed(0)
    image = image_network(network, 32)
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        maps, pooled = image.eval().maps(rgb), image(rgb)
    assert maps.shape == (2, width, *shape) and torch.allclose(pooled, maps.mean((2, 3)) + maps.amax((2, 3)))
    classes = ClassBaseline({"color": ("red", "blue")}, 0, image)
    assert not muon_matrices(classes) and muon_matrices(ClassBaseline({"color": ("red", "blue")}, 0))
    labels = Examples(rgb, [], [], {"color": np.array([0, 1])})
    assert math.isfinite(float(classes.train().loss(labels).detach()))
    assert image_network("resnet18", 224).maps(np.zeros((1, 224, 224, 3), np.uint8)).shape[2:] == (14, 14)
