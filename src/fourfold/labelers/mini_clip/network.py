"""The default teacher of the CLIP modality: a small contrastive image-caption model (after arXiv 2103.00020).

What makes it a good modality: the picture's vector is nothing but the *mean* of its patch features, so the features of a
patch say what is there in the very space in which captions live, and features that a student predicts can be compared with
text by the same `pool`. Each channel has zero mean and unit variance over the training pictures: easy to tokenize.

Shapes: B batch, H, W pixels, h, w patches of 8 × 8 pixels, C channels, L words, D width of the text tower.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fourfold.configuration import Config
from fourfold.labelers.fitting import FitConfig
from fourfold.labelers.mini_clip.words import PADDING, Words
from fourfold.labelers.networks import Residual, convolution, normalize_pixels
from fourfold.labelers.protocol import Batch

AT_ONCE = 256  # captions or pictures of one pass


class MiniClipConfig(Config):
    """Size and training of the model."""

    channels: int = Field(64, ge=4)  # C
    widths: tuple[int, int] = (48, 96)  # of the image tower at 1/4 and 1/8 of the size
    blocks: tuple[int, int] = (1, 2)  # residual blocks at each
    text_width: int = Field(128, ge=8)  # D
    text_blocks: int = Field(2, ge=1)
    max_words: int = Field(40, ge=4)  # L
    vocabulary_size: int = Field(2000, ge=1)  # words
    max_pairs: int = Field(10000, ge=2)  # image-caption pairs that are learned from
    temperature: float = Field(0.07, gt=0)  # where it starts; learned
    fit: FitConfig = FitConfig(steps=110, batch_size=96)


class ImageTower(nn.Module):
    """Pixels → features of 8 × 8 patches."""

    def __init__(self, config: MiniClipConfig) -> None:
        super().__init__()
        middle, coarse = config.widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            convolution(3 * 16, middle),
            *(Residual(middle) for _ in range(config.blocks[0])),
            convolution(middle, coarse, stride=2),
            *(Residual(coarse) for _ in range(config.blocks[1])),
            nn.Conv2d(coarse, config.channels, 1, bias=False),
            nn.BatchNorm2d(config.channels, affine=False),
        )

    def forward(self, rgb_BHWC: Tensor) -> Tensor:
        """Return features (B, h, w, C) of uint8 pixels (B, H, W, 3)."""
        return self.layers(normalize_pixels(rgb_BHWC)).movedim(1, -1)


class PhraseBlock(nn.Module):
    """A residual convolution over five words: `large red striped sphere` becomes one thing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, 5, padding=2)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, keep_BL1: Tensor) -> Tensor:
        """Return (B, L, D); words that are not kept stay zero and are not seen."""
        mixed_BDL = self.mix((self.norm(x_BLD) * keep_BL1).movedim(1, 2))
        return (x_BLD + self.out(functional.gelu(mixed_BDL.movedim(1, 2)))) * keep_BL1


class TextTower(nn.Module):
    """Word numbers → one vector: the mean over what was understood at each word."""

    def __init__(self, vocabulary_size: int, config: MiniClipConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, config.text_width, padding_idx=PADDING)
        self.blocks = nn.ModuleList(PhraseBlock(config.text_width) for _ in range(config.text_blocks))
        self.norm = nn.LayerNorm(config.text_width)
        self.out = nn.Linear(config.text_width, config.channels)

    def forward(self, numbers_BL: Tensor) -> Tensor:
        """Return (B, C), of any length."""
        keep_BL1 = (numbers_BL != PADDING).unsqueeze(-1).float()
        x_BLD = self.words(numbers_BL) * keep_BL1
        for block in self.blocks:
            x_BLD = block(x_BLD, keep_BL1)
        said_BLC = self.out(self.norm(x_BLD)) * keep_BL1
        return said_BLC.sum(1) / keep_BL1.sum(1).clamp(min=1)


class ClipTeacher(nn.Module):
    """Image and text towers, and the labeler that stores patch features."""

    name, modality, version = "mini_clip", "clip", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, words: Words, config: MiniClipConfig) -> None:
        super().__init__()
        self.vocabulary = words
        self.max_words = config.max_words
        self.image = ImageTower(config)
        self.text = TextTower(len(words), config)
        self.scale = nn.Parameter(torch.tensor(1 / config.temperature).log())

    @staticmethod
    def pool(features: np.ndarray | Tensor) -> np.ndarray:
        """Return unit vectors (B, C) float32 of patch features (B, h, w, C), given or predicted."""
        features_BhwC = torch.as_tensor(np.asarray(features, np.float32))
        return functional.normalize(features_BhwC.mean((1, 2)), dim=-1).numpy()

    def encode_image(self, rgb_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, C) and unit vectors (B, C), float32, of uint8 pixels (B, H, W, 3)."""
        with torch.inference_mode():
            features = np.concatenate([self.image(part).numpy() for part in torch.from_numpy(rgb_BHWC).split(AT_ONCE)])
        return features, self.pool(features)

    def encode_text(self, captions: list[str]) -> np.ndarray:
        """Return unit vectors (B, C) float32."""
        numbers_BL = self.vocabulary.numbers(captions, self.max_words)
        with torch.inference_mode():
            vectors_BC = torch.cat([self.text(part) for part in numbers_BL.split(AT_ONCE)])
        return functional.normalize(vectors_BC, dim=-1).numpy()

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (h, w, C) float16 arrays."""
        return list(self.encode_image(batch["rgb"])[0].astype(np.float16))

    def loss(self, rgb_BHWC: Tensor, numbers_BL: Tensor) -> Tensor:
        """Return the contrastive loss of paired pictures and captions, the mean of both directions.

        Equal captions in a batch are equally right.
        """
        image_BC = functional.normalize(self.image(rgb_BHWC).mean((1, 2)), dim=-1)
        text_BC = functional.normalize(self.text(numbers_BL), dim=-1)
        logits_BB = self.scale.exp().clamp(max=100) * image_BC @ text_BC.T
        same_BB = (numbers_BL[:, None] == numbers_BL[None]).all(-1).float()
        right_BB = same_BB / same_BB.sum(1, keepdim=True)
        return (functional.cross_entropy(logits_BB, right_BB) + functional.cross_entropy(logits_BB.T, right_BB)) / 2


class GlobalClip:
    """The embedding of a whole picture in the space of captions, from the patch features that were labeled before."""

    name, modality, version = "mini_clip_global", "clip_global", "1"
    needs: tuple[str, ...] = ("clip",)

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (C,) float16 arrays of unit length."""
        return list(ClipTeacher.pool(np.stack(batch["clip"])).astype(np.float16))
