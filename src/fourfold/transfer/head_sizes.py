"""Sizes of the heads of fine-tuning."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fourfold.configuration import Config


class DenseHeadConfig(Config):
    """The head that predicts maps; the defaults are those of MultiMAE (arXiv 2204.01678) and 4M-21 for ViT-B at 16 pixels."""

    kind: Literal["convnext", "dpt"] = "convnext"  # dpt reads four blocks of the encoder (arXiv 2103.13413)
    width: int = Field(384, ge=4)  # channels; 256 for dpt in MultiMAE
    depth: int = Field(4, ge=0)  # ConvNeXt blocks
    predictions_per_patch: int = Field(16, ge=1)  # of a ConvNeXt head: a square number; 64 for depth in MultiMAE

    @model_validator(mode="after")
    def _square(self) -> Self:
        side = round(self.predictions_per_patch**0.5)
        if side * side != self.predictions_per_patch:
            raise ValueError(
                f"`predictions_per_patch` is {self.predictions_per_patch}; it must be a square number: 1, 4, 16, 64, ..."
            )
        return self


class BoxHeadConfig(Config):
    """The pyramid and the head that predict boxes; the defaults are those of Faster R-CNN with a pyramid (arXiv 1612.03144)."""

    width: int = Field(256, ge=4)  # channels of the pyramid
    hidden: int = Field(1024, ge=4)  # units of the second stage
    pool_side: int = Field(7, ge=1)  # cells along a side of a pooled region
    anchor_cells: float = Field(8.0, gt=0)  # side of an anchor in cells of its level of the pyramid
    proposals: int = Field(1000, ge=1)  # regions of an image that reach the second stage
    sampled_boxes: int = Field(512, ge=1)  # of them, that the second stage learns from
    min_score: float = Field(0.05, ge=0, le=1)  # of a predicted box
    max_overlap: float = Field(0.5, gt=0, le=1)  # IoU of two boxes of a class; of more, the one with the lower score is dropped
    max_boxes: int = Field(100, ge=1)  # of an image


class HeadsConfig(Config):
    """Heads by what they predict."""

    dense: DenseHeadConfig = DenseHeadConfig()  # maps: segmentation, depth
    boxes: BoxHeadConfig = BoxHeadConfig()  # a pyramid with Faster R-CNN
