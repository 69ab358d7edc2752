"""Recipes of fine-tuning: what is trained, at which rates, and how it is regularized.

The defaults change nothing: every weight is trained at one rate, without regularization. 4M-21 (arXiv 2406.09406, tables 8 to
10) fine-tunes 4M-B with `layer_decay: 0.75, drop_path: 0.1`, and for ImageNet also with `pooling: mean, label_smoothing: 0.1,
mixup: 0.1, cutmix: 1.0`; 4M-XL learns segmentation with `lora: {rank: 64}` and depth with `lora: {rank: 8}`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.labelers.extras import require_package

Start = Literal["pretrained", "scratch", "baseline"]
Pooling = Literal["mean_and_max", "mean"]
Network = Literal["cnn", "resnet18", "resnet50", "vit"]


class LoraConfig(Config):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): the weights stay, products of two thin matrices are added."""

    rank: int = Field(8, ge=1)  # of each matrix; q, k and v, which share one layer, have this rank each
    scale: float = Field(1.0, gt=0)  # of the product, as in the 4M code; alpha / rank of the paper
    layers: Literal["attention", "mlp", "all"] = "attention"  # linear layers of the blocks that are adapted


class Recipe(Config):
    """How a network learns a task."""

    layer_decay: float = Field(1.0, gt=0, le=1)  # each block's rate is this share of the next block's; heads have the whole
    drop_path: float = Field(
        0.0, ge=0, lt=1
    )  # of the last encoder block's branches; that of earlier ones grows linearly from 0
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # of classes
    mixup: float = Field(0.0, ge=0)  # alpha of the beta distribution that blends two images of a classification task; 0: off
    cutmix: float = Field(0.0, ge=0)  # the same for pasting a rectangle; with both, each batch takes one of them at random
    average_decay: float | None = Field(None, gt=0, lt=1)  # of a moving average of the weights, which is scored; None: off
    lora: LoraConfig | None = None  # trains these matrices and the head only
    probe: bool = False  # trains the head only (linear probing of a classification task)
    pooling: Pooling = "mean_and_max"  # of a classification task: of patches, standardized; `mean`: layer norm, as in 4M
    image_size: int | None = Field(None, ge=1)  # pixels, to which images are resized; a transformer interpolates positions

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are blended."""
        return bool(self.mixup or self.cutmix)

    @property
    def freezes(self) -> bool:
        """Whether the weights of the network stay as they are."""
        return self.probe or self.lora is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.probe and self.lora:
            raise ValueError("`probe` trains the head only, and `lora` more than that. Give one of them.")
        if self.probe and self.drop_path:
            raise ValueError(f"`drop_path` is {self.drop_path}, but `probe` does not train the blocks. Remove one of them.")
        if self.freezes and self.layer_decay < 1:
            kind = "probe" if self.probe else "lora"
            raise ValueError(f"`layer_decay` is {self.layer_decay}, but `{kind}` keeps the weights. Remove one of them.")
        return self


class ArmConfig(Recipe):
    """One arm of the comparison: where the weights come from, and the recipe."""

    start: Start  # `pretrained`: the any-to-any model; `scratch`: the same with fresh weights; `baseline`: a plain network
    network: Network = "cnn"  # of a baseline; all but cnn need the extra `hub`

    @model_validator(mode="after")
    def _only_what_the_network_has(self) -> Self:
        if self.start != "baseline" and self.network != "cnn":
            raise ValueError(f"`network` is {self.network!r}; only an arm with `start: baseline` has one.")
        transformer_only = {
            name: getattr(self, name)
            for name in ("layer_decay", "drop_path", "lora", "probe", "pooling")
            if getattr(self, name) != Recipe.model_fields[name].default
        }
        if self.start == "baseline" and transformer_only:
            raise ValueError(
                f"A baseline has no {', '.join(f'`{name}`' for name in transformer_only)}: they change the transformer. "
                "Allowed: label_smoothing, mixup, cutmix, average_decay, image_size."
            )
        if self.network != "cnn":
            require_package("torchvision", "hub")
        if self.start == "scratch" and self.freezes:
            raise ValueError(
                "An arm from scratch has no weights to keep. Remove `probe` and `lora`, or set `start: pretrained`."
            )
        return self
