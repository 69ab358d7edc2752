"""Released models under the learners of transfer tasks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fourfold.generation.any_to_any import AnyToAny
from fourfold.training.run_context import RunContext
from fourfold.transfer.adaptation import merge_lora
from fourfold.transfer.arms import Draw, PretrainedModel, build_learner
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import fit
from fourfold.transfer.head_sizes import DenseHeadConfig, HeadsConfig
from fourfold.transfer.label_tasks import segmentation_task
from fourfold.transfer.learners import ClassLearner, TextLearner
from fourfold.transfer.recipes import ArmConfig
from fourfold.transfer.runs import Run
from fourfold.transfer.tasks import Examples
from tests.support.released_set import SIDE, make_released_set

EXAMPLES = Examples(
    np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8),
    ["a man", "the dog", "a ride"],
    ["rides", "a", "the"],
    {"color": np.array([0, 1, 1])},
)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return AnyToAny.from_released(make_released_set(tmp_path_factory.mktemp("released")))


def test_text_and_classes_are_learned(released):
    text = TextLearner(released.model, released.tokenizers.text, 5)
    classes = ClassLearner(released.model, {"color": ("red", "blue")}, 0)
    for learner in (text, classes):
        optimizer = torch.optim.AdamW(learner.parameters(), 3e-3)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = learner.train().loss(EXAMPLES)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.9 * losses[0]
    assert len(text.eval().predict(EXAMPLES)) == 3
    assert classes.eval().predict(EXAMPLES)["color"].shape == (3,)


@pytest.mark.parametrize("recipe", [{"layer_decay": 0.75}, {"lora": {"rank": 1}}, {"image_size": 2 * SIDE}])
def test_maps_are_learned_with_any_recipe(released, recipe):
    labels = list(np.random.default_rng(1).integers(0, 3, (3, SIDE, SIDE)).astype(np.uint8))
    examples = replace(EXAMPLES, prompts=[], answers=[], classes={}, labels=labels)
    task = segmentation_task("maps", "Maps", 3)
    arm = ArmConfig(start="pretrained", **recipe)
    heads = HeadsConfig(dense=DenseHeadConfig(width=8, depth=1, predictions_per_patch=4))
    config = TransferConfig(arms={"one": arm}, heads=heads, steps=8, batch_size=3, precision="fp32")
    pretrained = PretrainedModel(released.model, released.tokenizers.text, "released")
    learner = build_learner(pretrained, task, config, arm, Draw(examples, 0))
    seen = examples.resized(arm.image_size)
    before = float(learner.loss(seen).detach())
    fit(learner, seen, config, Run("maps", "one", 3, 0, 1.0), RunContext(0))
    merge_lora(learner)
    assert float(learner.loss(seen).detach()) < before
    assert [found.shape for found in learner.eval().predict(seen)] == [(SIDE, SIDE)] * 3


def test_images_of_another_size_are_an_error(released):
    small = Examples(EXAMPLES.rgb[:, :16, :16], EXAMPLES.prompts, EXAMPLES.answers, EXAMPLES.classes)
    with pytest.raises(ValueError, match=f"The images have 16 × 16 pixels; the model needs {SIDE} × {SIDE}"):
        TextLearner(released.model, released.tokenizers.text, 5).loss(small)
