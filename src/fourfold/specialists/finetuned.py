"""The generalist, fine-tuned for one task: the encoder of the pretrained 4M with a head of the papers, on the same labels.

As in 4M (arXiv 2312.06647, section 4) the decoder is discarded and every weight of the encoder is trained. The heads are those
of `fourfold.transfer.heads`.
"""

# B batch, H height, W width

from typing import Any

import numpy as np
from torch import Tensor, nn

from fourfold.modalities.class_table import MAX_ID, ClassTable
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.specialists.protocol import (
    MODEL,
    Facts,
    Finetuned,
    LabeledImages,
    Specialist,
    SpecialistConfig,
    mirrored_boxes,
    mirrored_maps,
)
from fourfold.specialists.surveys import positive_depths, require_torchvision, survey_boxes, survey_classes
from fourfold.transfer.backbones import FourMBackbone
from fourfold.transfer.head_sizes import BoxHeadConfig, DenseHeadConfig, HeadsConfig
from fourfold.transfer.heads.dense import DepthHead, DepthModule, SegmentationModule, dense_head
from fourfold.transfer.heads.detection import BoxModule

IGNORED_ID = MAX_ID  # an id that no class has


class FinetunedConfig(SpecialistConfig):
    """Head and training of a fine-tuned generalist."""

    # A fraction of the papers' widths, which are for encoders of width 768 and images of 224 pixels or more
    heads: HeadsConfig = HeadsConfig(
        dense=DenseHeadConfig(width=32, depth=2, predictions_per_patch=16),
        boxes=BoxHeadConfig(width=64, hidden=128, anchor_cells=4.0, proposals=100, sampled_boxes=64, max_boxes=50),
    )


class FinetunedNetwork(Finetuned):
    """The encoder of 4M and a head."""

    def __init__(self, model: FourM, head: Any) -> None:
        """Take a model, whose decoder is discarded, and a module of `fourfold.transfer.heads`."""
        super().__init__()
        model.decoder = nn.ModuleList()
        self.backbone, self.head = FourMBackbone(model), head

    def start_from(self, generalist: FourM) -> None:
        """Copy the weights of a pretrained model with the same configuration."""
        own = self.backbone.model.state_dict()
        self.backbone.model.load_state_dict({name: value for name, value in generalist.state_dict().items() if name in own})

    @property
    def matrices(self) -> None:
        """Leave it to the optimizer to find the matrices of the blocks."""
        return None

    def used(self) -> nn.Module:
        """Return the parts that a prediction needs; the tables of other modalities are not among them."""
        model = self.backbone.model
        return nn.ModuleList([*filter(None, (model.patches, model.further_patches, model.place)), *self._blocks(), self.head])

    def losses(self, rgb_BHWC: Tensor, values: Any) -> dict[str, Tensor]:
        """Return the loss of the head."""
        return {"loss": self.head.loss(self._maps(rgb_BHWC), list(self.targets(values)))}

    def predict(self, rgb_BHWC: Tensor) -> np.ndarray | list[Any]:
        """Return the labels of images uint8 (B, H, W, 3) in the format of the shards."""
        found = self.head.predict(self._maps(rgb_BHWC), tuple(rgb_BHWC.shape[1:3]))
        return found if isinstance(self.head, BoxModule) else np.stack(found)

    def targets(self, values: Any) -> Any:
        """Return labels as the head reads them."""
        return values

    def _maps(self, rgb_BHWC: Tensor) -> list[Tensor]:
        return self.backbone(rgb_BHWC.cpu().numpy(), self.head.num_maps)

    def _blocks(self) -> list[nn.Module]:
        return [*self.backbone.model.encoder, self.backbone.model.encoder_norm]


class FinetunedSegmentation(FinetunedNetwork):
    """Predicts a class for each pixel; ignored classes do not count."""

    def __init__(self, model: FourM, head: Any, table: ClassTable) -> None:
        super().__init__(model, head)
        self.ignored = list(table.ignored)

    def targets(self, values: Any) -> np.ndarray:
        """Return ids uint8 (B, H, W) in which ignored classes have an id that does not count."""
        return np.where(np.isin(values, self.ignored), IGNORED_ID, values)


def survey_mean_depth(data: LabeledImages) -> Facts:
    """Return mean, deviation and limits of the depth; raises ValueError when no pixel has a depth."""
    depth_N = positive_depths(data).astype(np.float64)
    limits = {"nearest": float(depth_N.min()), "farthest": float(depth_N.max())}
    return {"mean": float(depth_N.mean()), "deviation": max(float(depth_N.std()), 1e-6), **limits}


def _build_segmentation(config: FinetunedConfig, facts: Facts) -> FinetunedNetwork:
    model, table = _model(facts), ClassTable.model_validate(facts["class_table"])
    head = SegmentationModule(dense_head(model.config.dim, table.num_classes, config.heads.dense), table.num_classes)
    return FinetunedSegmentation(model, head, table)


def _build_depth(config: FinetunedConfig, facts: Facts) -> FinetunedNetwork:
    model = _model(facts)
    limits = DepthHead(facts["nearest"], np.nextafter(facts["farthest"], np.inf))
    head = DepthModule(dense_head(model.config.dim, 1, config.heads.dense), limits, facts["mean"], facts["deviation"])
    return FinetunedNetwork(model, head)


def _build_boxes(config: FinetunedConfig, facts: Facts) -> FinetunedNetwork:
    model = _model(facts)
    return FinetunedNetwork(model, BoxModule(model.config.dim, tuple(facts["classes"]), config.heads.boxes))


def _model(facts: Facts) -> FourM:
    return FourM(ModelConfig.model_validate(facts[MODEL]))


FINETUNED = (
    Specialist(
        name="finetuned_segmentation",
        title="4M, fine-tuned: segmentation",
        target="semseg",
        source="arXiv 2312.06647",
        config_class=FinetunedConfig,
        survey=survey_classes,
        build=_build_segmentation,
        mirror=mirrored_maps,
        is_finetuned=True,
    ),
    Specialist(
        name="finetuned_depth",
        title="4M, fine-tuned: depth",
        target="depth",
        source="arXiv 2312.06647",
        config_class=FinetunedConfig,
        survey=survey_mean_depth,
        build=_build_depth,
        mirror=mirrored_maps,
        is_finetuned=True,
    ),
    Specialist(
        name="finetuned_boxes",
        title="4M, fine-tuned: boxes",
        target="det",
        source="arXiv 2312.06647",
        config_class=FinetunedConfig,
        survey=survey_boxes,
        build=_build_boxes,
        mirror=mirrored_boxes,
        require=require_torchvision,
        is_finetuned=True,
    ),
)
