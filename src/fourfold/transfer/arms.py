"""Learners of the arms: the any-to-any model, the same architecture with fresh weights, and plain baselines."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.generation.config import find_modality
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.seeds import derive_seed
from fourfold.training.optimizers import OptimizerConfig, OptimizerSet, build_optimizer
from fourfold.transfer.adaptation import adapt, layer_rates
from fourfold.transfer.backbones import BaselineBackbone, FourMBackbone, HeadLearner
from fourfold.transfer.baselines import AnswerBaseline, CaptionBaseline, ClassBaseline, image_network, muon_matrices
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.learners import AnswerLearner, ClassLearner, TextCodec, TextLearner
from fourfold.transfer.recipes import ArmConfig, Start
from fourfold.transfer.tasks import Examples, ExampleSource, TransferTask


@dataclass(frozen=True)
class PretrainedModel:
    """The model that is fine-tuned, its text tokenizer, and a digest that identifies both."""

    model: FourM
    text: TextCodec
    digest: str = ""

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights, which every pretrained arm starts from."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def build_learner(pretrained: PretrainedModel, task: TransferTask, config: TransferConfig, arm: ArmConfig, draw: "Draw") -> Any:
    """Return the untrained learner of an arm: a module with `loss(examples)` and `predict(examples)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(draw.seed, "weights"))
        if arm.start == "baseline":
            return _baseline(pretrained.text, task, config, arm, draw)
        model = fresh_model(pretrained, arm.start, draw.seed, arm.image_size)
        adapt(model, arm, draw.seed)
        if task.kind == "text":
            return TextLearner(model, pretrained.text, config.max_tokens)
        if task.kind == "classes":
            return ClassLearner(model, task.choices, draw.seed, arm.pooling)
        if task.kind == "answers":
            return AnswerLearner(model, pretrained.text, task.answers)
        return with_head(FourMBackbone(model), task, config, draw.labeled)


@dataclass(frozen=True)
class Draw:
    """The labels of a run, and the seed that drew them and determines everything else that is random."""

    labeled: ExampleSource
    seed: int


def _baseline(text: TextCodec, task: TransferTask, config: TransferConfig, arm: ArmConfig, draw: Draw) -> nn.Module:
    image = image_network(arm.network, arm.image_size or draw.labeled.size[0])
    if task.kind == "classes":
        return ClassBaseline(task.choices, draw.seed, image)
    if task.kind == "labels":
        return with_head(BaselineBackbone(image), task, config, draw.labeled)
    if task.kind == "answers":
        return AnswerBaseline(task.answers, text, image)
    assert isinstance(draw.labeled, Examples)
    if any(draw.labeled.prompts):
        return AnswerBaseline(sorted(set(draw.labeled.answers)), text, image)
    return CaptionBaseline(text, config.max_tokens, image)


def with_head(backbone: Any, task: TransferTask, config: TransferConfig, labeled: ExampleSource) -> HeadLearner:
    """Return a network (`fourfold.transfer.backbones`) with the head of a task."""
    assert task.head is not None
    head = task.head.build(backbone.width, config.heads, labeled)
    return HeadLearner(backbone, head, labeled.size)  # what it predicts has the size of the stored images


def fresh_model(pretrained: PretrainedModel, start: Start, seed: int, image_size: int | None = None) -> FourM:
    """Return a copy of the pretrained model, or the same architecture with weights from `seed`.

    `image_size`: pixels of the images' sides; positions are interpolated if it is not that of the model.
    """
    config = ModelConfig.model_validate(pretrained.model.config.model_dump())
    if image_size is not None:
        config = config.at_image_size(find_modality("rgb", config.names), image_size, image_size)
    model = FourM(config, seed)
    if start == "pretrained":
        model.load_state_dict(pretrained.weights)
    return model


def optimizer_of(learner: nn.Module, config: OptimizerConfig, arm: ArmConfig, lr_multiplier: float) -> OptimizerSet:
    """Return the optimizer of a learner, with rates by layer if the recipe says so."""
    rates = {name: getattr(config, name) * lr_multiplier for name in ("learning_rate", "muon_learning_rate")}
    # In the transformer the optimizer finds the matrices for Muon by itself.
    matrices = muon_matrices(learner) if arm.start == "baseline" else None
    by_layer = None
    if arm.layer_decay < 1:
        by_layer = layer_rates(learner, arm.layer_decay, with_decoder=isinstance(learner, TextLearner))
    return build_optimizer(learner, config.model_copy(update=rates), matrices, by_layer)
