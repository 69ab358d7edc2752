"""Networks as sources of feature maps, on which heads predict: the encoder of 4M, and plain baselines."""

# B batch, D width, h w rows and columns of the map

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from fourfold.generation.config import find_modality
from fourfold.model.fourm import FourM
from fourfold.transfer.baselines import ImageNetwork
from fourfold.transfer.learners import PREDICTION_BATCH, image_batch
from fourfold.transfer.tasks import Examples


class FourMBackbone(nn.Module):
    """The encoder of 4M; the decoder is discarded, as in its transfers."""

    def __init__(self, model: FourM) -> None:
        super().__init__()
        self.model, self.width = model, model.config.dim
        self.pixels = find_modality("rgb", model.config.names)

    def forward(self, rgb: np.ndarray, num_maps: int) -> list[Tensor]:
        """Return maps (B, D, h, w) of images uint8 (B, H, W, 3).

        The last one is the encoder's output; those before it are the outputs of blocks at equal distances (the third, sixth
        and ninth of twelve). An encoder must have as many blocks as there are maps.
        """
        blocks = list(self.model.encoder)
        if len(blocks) < num_maps:
            raise ValueError(
                f"The head reads {num_maps} blocks of the encoder, which has {len(blocks)}. "
                "Set finetuning.heads.dense.kind to convnext."
            )
        chosen = [blocks[round(len(blocks) * (index + 1) / num_maps) - 1] for index in range(num_maps - 1)]
        outputs: list[Tensor] = []
        handles = [block.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for block in chosen]
        try:
            encoding = self.model.encode(image_batch(self.model, rgb))
        finally:
            for handle in handles:
                handle.remove()
        features = [encoding.packing.pad(rows_TD)[:, encoding.num_registers :] for rows_TD in outputs]
        rows, columns = self.model.config.modality(self.pixels).grid or (1, 1)
        return [one_BND.mT.unflatten(2, (rows, columns)) for one_BND in (*features, encoding.features_BND)]


class BaselineBackbone(nn.Module):
    """The network of a baseline arm, which has one map."""

    def __init__(self, image: ImageNetwork) -> None:
        super().__init__()
        self.image, self.width = image, image.width

    def forward(self, rgb: np.ndarray, num_maps: int) -> list[Tensor]:
        """Return the same map (B, D, h, w) as often as asked for."""
        return [self.image.maps(rgb)] * num_maps


class HeadLearner(nn.Module):
    """A network with the head of a task: image in, labels of images of a size out."""

    def __init__(self, backbone: nn.Module, head: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone, self.head, self.size = backbone, head, size

    def loss(self, examples: Examples) -> Tensor:
        """Return the loss of the head."""
        return self.head.loss(self._maps(examples.rgb), examples.labels)

    def predict(self, examples: Examples) -> list[Any]:
        """Return what the head predicts for each image."""
        found = list[Any]()
        for first in range(0, len(examples), PREDICTION_BATCH):
            found += self.head.predict(self._maps(examples.rgb[first : first + PREDICTION_BATCH]), self.size)
        return found

    def _maps(self, rgb: np.ndarray) -> Sequence[Tensor]:
        return self.backbone(rgb, self.head.num_maps)
