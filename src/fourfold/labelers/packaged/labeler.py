"""What labelers that use packaged networks share."""

from functools import cached_property
from typing import Any, ClassVar

from PIL import Image

from fourfold.labelers.packaged.graphs import Graph
from fourfold.labelers.packaged.networks import Network, PackagedConfig, network_folder, origin_of, require_networks
from fourfold.labelers.protocol import Labeler, LabelingContext


class PackagedLabeler(Labeler):
    """A labeler whose networks `make teachers` has fetched; `folders` has one folder for each of `networks_of`."""

    kind = "packaged"
    networks: ClassVar[tuple[Network, ...]] = ()
    config: PackagedConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.folders = [network_folder(self.config, network) for network in self.networks_of(self.config)]

    @classmethod
    def networks_of(cls, config: Any) -> tuple[Network, ...]:
        """Return the networks that the labeler uses with these settings; without a choice `networks`."""
        return cls.networks

    @classmethod
    def require(cls, config: Any) -> None:
        """Raise ValueError when a network was not fetched."""
        require_networks(config, *cls.networks_of(config))

    def origin(self) -> dict[str, Any]:  # noqa: D102
        return origin_of(self.config, *self.networks_of(self.config))


class GraphLabeler(PackagedLabeler):
    """A labeler whose one network is a graph."""

    @cached_property
    def graph(self) -> Graph:
        """The network."""
        return Graph.load(self.folders[0])


def with_longer_side(image: Image.Image, side: int) -> Image.Image:
    """Return an image whose longer side is resized to `side` pixels, bicubic; the ratio of the sides stays."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
