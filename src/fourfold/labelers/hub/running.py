"""Running a checkpoint on batches of images: what all adapters share."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from fourfold.labelers.extras import require_package
from fourfold.labelers.hub.checkpoints import Checkpoint, HubConfig, device_of, open_checkpoint, origin_of, require_known
from fourfold.labelers.protocol import Labeler, LabelingContext

# B images of a batch, H, W pixels


class TransformersLabeler(Labeler):
    """Loads a checkpoint when the first image is labeled, and runs it on a few images at once."""

    config_class = HubConfig
    config: HubConfig
    kind = "transformers"

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.checkpoint: Checkpoint = open_checkpoint(self.config)  # what is missing is an error before any work starts

    @classmethod
    def require(cls, config: HubConfig) -> None:
        """Raise ValueError when the extra or a folder is missing; a model of the hub is fetched when it is used."""
        require_package("transformers", "hub")
        require_known(config.model)

    def origin(self) -> dict[str, Any]:
        """Return model, revision, license and digest of the checkpoint."""
        return origin_of(self.config)

    @cached_property
    def processor(self) -> Any:
        """The library's processor of this checkpoint."""
        return self.checkpoint.processor(self.processor_class(), self.config, **self.processor_options())

    @cached_property
    def model(self) -> Any:
        """The network, in evaluation mode."""
        return self.checkpoint.model(self.model_class(), self.config)

    def processor_class(self) -> Any:
        """Return the library's class that prepares the images."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor

    def processor_options(self) -> dict[str, Any]:
        """Return options of the processor that replace those of the checkpoint."""
        return {}

    def model_class(self) -> Any:
        """Return the library's class of the network."""
        raise NotImplementedError

    def chunks(self, rgb_BHW3: Any) -> Iterator[list[Image.Image]]:
        """Yield the images of a batch as Pillow images, as many at once as the settings allow."""
        images = [Image.fromarray(np.asarray(rgb_HW3)) for rgb_HW3 in rgb_BHW3]
        for start in range(0, len(images), self.config.batch_size):
            yield images[start : start + self.config.batch_size]

    def inputs(self, **arguments: Any) -> Any:
        """Return what the processor makes of its arguments, on the device and in the dtype of the model."""
        prepared = self.processor(return_tensors="pt", **arguments)
        return prepared.to(device_of(self.config)).to(getattr(torch, self.config.dtype))


def sizes_of(images: list[Image.Image]) -> list[tuple[int, int]]:
    """Return (height, width) of each image, as the library's post-processing expects it."""
    return [(image.height, image.width) for image in images]
