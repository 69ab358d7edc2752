"""How stored values enter the released tokenizers, where that differs from the tokenizers of a run.

The reference feeds depth standardized for each image, class ids, and features as their network returns them.
"""

# B batch, C channels, H W pixels, h w feature map

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.modalities import label
from fourfold.tokenizers.formats import MIN_DEPTH, DenseFormat, DepthFormat, FeatureFormat, dense_format

TRIM = 0.1  # share of the lowest and of the highest depths that the statistics of an image leave out
COCO_PANOPTIC = 134  # classes of the released segmentation: 133 of COCO, after "void"
VOID = 255  # our id of pixels without a class; the reference adds 1 to all ids, so it becomes 0
RELATIVE = {"mean": [4.0], "deviation": [1.0]}  # depth of decoded images, if no unit is given


class RelativeDepthFormat(DenseFormat):
    """Depth (H, W) in any unit, standardized for each image by its trimmed mean and variance (4M §A.3).

    Tokens therefore do not tell the scale. Reconstructions have the mean and deviation of `statistics`; with those of a
    data set in meters, they are depths in meters up to each image's own scale and offset.
    """

    channels = 1

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        depth_BHW = torch.from_numpy(np.asarray(values, dtype=np.float32))
        sorted_BN = depth_BHW.flatten(1).sort(dim=1).values
        cut = int(TRIM * sorted_BN.shape[1])
        kept_BN = sorted_BN[:, cut : sorted_BN.shape[1] - cut]
        mean_B11, variance_B11 = (row[:, None, None] for row in (kept_BN.mean(1), kept_BN.var(1)))
        return ((depth_BHW - mean_B11) / (variance_B11 + 1e-6).sqrt())[:, None]

    loss = DepthFormat.loss

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        depth_BHW = output_BCHW[:, 0] * self.statistics["deviation"][0] + self.statistics["mean"][0]
        return depth_BHW.clamp(min=MIN_DEPTH).half().numpy()


class ClassIdFormat(DenseFormat):
    """Class ids uint8 (H, W), which the network embeds. The 134 classes of COCO are shifted by one, as in the reference."""

    channels = 1

    def __init__(self, num_classes: int):
        super().__init__({})
        self.num_classes, self.shift = num_classes, int(num_classes == COCO_PANOPTIC)

    def inputs(self, values: np.ndarray) -> Tensor:
        """Return ids (B, 1, H, W) float32; raises ValueError for an id that is not a class."""
        ids_BHW = torch.from_numpy((np.asarray(values).astype(np.int64) + self.shift) % (VOID + 1))
        if ids_BHW.numel() and int(ids_BHW.max()) >= self.num_classes:
            highest, last = int(ids_BHW.max()) - self.shift, self.num_classes - 1 - self.shift
            void = f", and {VOID} for none" if self.shift else ""
            raise ValueError(f"Class id {highest} is out of range; allowed: 0 to {last}{void}. Map the classes to these.")
        return ids_BHW[:, None].float()

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.cross_entropy(output_BCHW, inputs_BCHW[:, 0].long())

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return ((output_BCHW.argmax(1) - self.shift) % (VOID + 1)).byte().numpy()


class PlainVectorFormat(FeatureFormat):
    """Global vectors (C,) as the network returned them, as images of 1 × 1; reconstructions have unit length."""

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        return torch.from_numpy(values.astype(np.float32))[:, :, None, None]

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return (1 - F.cosine_similarity(output_BCHW.flatten(1), inputs_BCHW.flatten(1), dim=1)).mean()

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return F.normalize(output_BCHW.flatten(1), dim=1).half().numpy()


def released_format(name: str, channels: int, num_classes: int | None) -> DenseFormat:
    """Return the format of a released tokenizer.

    Args:
        name: the label.
        channels: of the tokenizer's inputs.
        num_classes: of its class ids, None for others.

    Raises:
        ValueError: the label needs another number of channels, or class ids.
    """
    kind = label(name).kind
    if (kind == "classes") != (num_classes is not None):
        raise ValueError(f"the tokenizer of {name!r} has n_labels {num_classes}; only that of semseg must have it.")
    if kind == "classes":
        assert num_classes is not None
        return ClassIdFormat(num_classes)
    plain = {"mean": [0.0] * channels, "deviation": [1.0] * channels}
    found = {
        "depth": lambda: RelativeDepthFormat(RELATIVE),
        "vector": lambda: PlainVectorFormat(plain),
        "features": lambda: FeatureFormat(plain),
    }.get(kind, lambda: dense_format(name, {}))()
    if found.channels != channels:
        raise ValueError(f"the tokenizer of {name!r} has {channels} channels; its values need {found.channels}.")
    return found
