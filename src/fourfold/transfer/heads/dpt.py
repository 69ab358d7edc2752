"""The head of DPT (Ranftl et al. 2021, arXiv 2103.13413, section 3): maps of four blocks, brought to four sizes and fused."""

# B batch, D width of the network, C channels of the head, K outputs

from torch import Tensor, nn
from torch.nn import functional

from fourfold.transfer.head_sizes import DenseHeadConfig

NUM_MAPS = 4
SHARES = (8, 4, 2, 1)  # the width of the network over the channels of each reassembled map, as in ViT-B: 96, 192, 384, 768


class ResidualUnit(nn.Module):
    """Two 3 × 3 convolutions with activations before them, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return x_BCHW + self.second(functional.relu(self.first(functional.relu(x_BCHW))))


class Fusion(nn.Module):
    """Adds the map of one size to what comes from the coarser ones, refines it, and doubles its size."""

    def __init__(self, channels: int, has_coarser: bool) -> None:
        super().__init__()
        self.own = ResidualUnit(channels) if has_coarser else None
        self.both = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor, coarser_BCHW: Tensor | None = None) -> Tensor:
        """Return (B, C, 2 H, 2 W)."""
        if self.own is not None and coarser_BCHW is not None:
            if coarser_BCHW.shape != x_BCHW.shape:  # where an odd number of rows was halved
                coarser_BCHW = functional.interpolate(coarser_BCHW, x_BCHW.shape[-2:], mode="bilinear", align_corners=False)
            x_BCHW = coarser_BCHW + self.own(x_BCHW)
        return self.out(functional.interpolate(self.both(x_BCHW), scale_factor=2, mode="bilinear", align_corners=True))


class DptHead(nn.Module):
    """Maps of four blocks → maps with 16 times as many rows and columns."""

    num_maps = NUM_MAPS

    def __init__(self, width: int, outputs: int, config: DenseHeadConfig) -> None:
        super().__init__()
        channels = config.width
        widths = [max(1, width // share) for share in SHARES]
        changes: list[nn.Module] = [
            nn.ConvTranspose2d(widths[0], widths[0], 4, 4),
            nn.ConvTranspose2d(widths[1], widths[1], 2, 2),
            nn.Identity(),
            nn.Conv2d(widths[3], widths[3], 3, 2, 1),
        ]
        self.reassemble = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, own, 1), change, nn.Conv2d(own, channels, 3, padding=1, bias=False))
            for own, change in zip(widths, changes, strict=True)
        )
        self.fuse = nn.ModuleList(Fusion(channels, has_coarser=index < NUM_MAPS - 1) for index in range(NUM_MAPS))
        half = max(1, channels // 2)
        self.before, self.after = nn.Conv2d(channels, half, 3, padding=1), nn.Conv2d(half, half, 3, padding=1)
        self.predict = nn.Conv2d(half, outputs, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return (B, K, 16 · h, 16 · w) of four maps (B, D, h, w), the output of the last block at the end."""
        levels = [layers(one) for layers, one in zip(self.reassemble, maps, strict=True)]
        fused: Tensor | None = None
        for fusion, level in zip(reversed(self.fuse), reversed(levels), strict=True):
            fused = fusion(level, fused)
        assert fused is not None
        large = functional.interpolate(self.before(fused), scale_factor=2, mode="bilinear", align_corners=True)
        return self.predict(functional.relu(self.after(large)))
