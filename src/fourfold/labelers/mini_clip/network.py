"""A small contrastive image-caption model (after CLIP, arXiv 2103.00020): the default teacher of the CLIP modality.

The vector of an image is the *mean* of its patch features. So the features of a patch are in the space of captions, and
features that a student predicts can be compared with text after the same `pool`. Each channel has zero mean and unit
variance over the training images, which makes the features easy to tokenize.

Shapes: B batch, H, W pixels, h, w patches of 8 × 8 pixels, C channels, L words, D width of the text tower.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fourfold.configuration import Config
from fourfold.labelers.fitting import FitConfig
from fourfold.labelers.mini_clip.words import PADDING_ID, WordVocabulary
from fourfold.labelers.networks import Residual, convolution, normalize_pixels

CHUNK_SIZE = 256  # captions or images of one forward pass


class MiniClipConfig(Config):
    """Size and training of the model."""

    channels: int = Field(64, ge=4)  # C
    widths: tuple[int, int] = (48, 96)  # channels of the image tower at 1/4 and 1/8 of the size
    blocks: tuple[int, int] = (1, 2)  # residual blocks at each of the two sizes
    text_width: int = Field(128, ge=8)  # D
    text_blocks: int = Field(2, ge=1)
    max_words: int = Field(40, ge=4)  # L
    vocabulary_size: int = Field(2000, ge=1)  # words
    max_pairs: int = Field(10000, ge=2)  # image-caption pairs for training
    temperature: float = Field(0.07, gt=0)  # initial value; it is learned
    fit: FitConfig = FitConfig(steps=110, batch_size=96)


class ImageTower(nn.Module):
    """Encodes pixels as features of 8 × 8 patches."""

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
    """A residual convolution over five words, so that the words of a phrase (`large red striped sphere`) are combined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, 5, padding=2)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, keep_BL1: Tensor) -> Tensor:
        """Return (B, L, D); positions that are not kept stay zero and have no influence."""
        mixed_BDL = self.mix((self.norm(x_BLD) * keep_BL1).movedim(1, 2))
        return (x_BLD + self.out(functional.gelu(mixed_BDL.movedim(1, 2)))) * keep_BL1


class TextTower(nn.Module):
    """Encodes word ids as one vector: the mean over the words."""

    def __init__(self, vocabulary_size: int, config: MiniClipConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, config.text_width, padding_idx=PADDING_ID)
        self.blocks = nn.ModuleList(PhraseBlock(config.text_width) for _ in range(config.text_blocks))
        self.norm = nn.LayerNorm(config.text_width)
        self.out = nn.Linear(config.text_width, config.channels)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Return (B, C), not normalized, of word ids int64 (B, L)."""
        keep_BL1 = (ids_BL != PADDING_ID).unsqueeze(-1).float()
        x_BLD = self.words(ids_BL) * keep_BL1
        for block in self.blocks:
            x_BLD = block(x_BLD, keep_BL1)
        vectors_BLC = self.out(self.norm(x_BLD)) * keep_BL1
        return vectors_BLC.sum(1) / keep_BL1.sum(1).clamp(min=1)


class MiniClip(nn.Module):
    """Image tower and text tower with a learned temperature; implements `ImageTextEncoder`."""

    def __init__(self, vocabulary: WordVocabulary, config: MiniClipConfig) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.max_words = config.max_words
        self.image = ImageTower(config)
        self.text = TextTower(len(vocabulary), config)
        self.scale = nn.Parameter(torch.tensor(1 / config.temperature).log())

    @staticmethod
    def pool(features: np.ndarray | Tensor) -> np.ndarray:
        """Return unit vectors (B, C) float32 of patch features (B, h, w, C), encoded or predicted."""
        features_BhwC = torch.as_tensor(np.asarray(features, np.float32))
        return functional.normalize(features_BhwC.mean((1, 2)), dim=-1).numpy()

    def encode_image(self, rgb_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, C) and unit vectors (B, C), float32, of uint8 pixels (B, H, W, 3)."""
        with torch.inference_mode():
            features = np.concatenate([self.image(chunk).numpy() for chunk in torch.from_numpy(rgb_BHWC).split(CHUNK_SIZE)])
        return features, self.pool(features)

    def encode_text(self, captions: list[str]) -> np.ndarray:
        """Return unit vectors (B, C) float32."""
        ids_BL = self.vocabulary.encode(captions, self.max_words)
        with torch.inference_mode():
            vectors_BC = torch.cat([self.text(chunk) for chunk in ids_BL.split(CHUNK_SIZE)])
        return functional.normalize(vectors_BC, dim=-1).numpy()

    def loss(self, rgb_BHWC: Tensor, ids_BL: Tensor) -> Tensor:
        """Return the contrastive loss of paired images and captions, the mean of both directions (arXiv 2103.00020, figure 3).

        Where a batch holds a caption more than once, its images share the target probability; CLIP treats them as wrong.
        """
        image_BC = functional.normalize(self.image(rgb_BHWC).mean((1, 2)), dim=-1)
        text_BC = functional.normalize(self.text(ids_BL), dim=-1)
        logits_BB = self.scale.exp().clamp(max=100) * image_BC @ text_BC.T
        same_BB = (ids_BL[:, None] == ids_BL[None]).all(-1).float()
        target_BB = same_BB / same_BB.sum(1, keepdim=True)
        return (functional.cross_entropy(logits_BB, target_BB) + functional.cross_entropy(logits_BB.T, target_BB)) / 2
