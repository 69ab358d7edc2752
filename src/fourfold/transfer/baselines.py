"""The baseline arm: a small CNN, with a bag of words for questions and a GRU for captions (after arXiv 1411.4555)."""

# B samples, D width, L words, M target tokens, V vocabulary, K classes

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.labelers.networks import convolution, normalize_pixels
from fourfold.transfer.learners import PREDICTION_BATCH, TextCodec, answer_loss, class_heads, class_loss, most_likely
from fourfold.transfer.networks import TorchvisionEncoder
from fourfold.transfer.recipes import Network
from fourfold.transfer.tasks import Choices, Examples

WIDTHS = (32, 64, 128)


class ImageEncoder(nn.Module):
    """Pixels → one vector per image, (B, D)."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        first, second, third = widths
        self.width = third
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            convolution(12, first),
            convolution(first, second, stride=2),
            convolution(second, second),
            convolution(second, third, stride=2),
            convolution(third, third),
        )

    def maps(self, rgb: np.ndarray) -> Tensor:
        """Return features (B, D, H / 8, W / 8) of uint8 (B, H, W, 3)."""
        pixels_BCHW = normalize_pixels(torch.from_numpy(np.ascontiguousarray(rgb)))
        return self.layers(pixels_BCHW.to(_device(self)).contiguous(memory_format=torch.channels_last))

    def forward(self, rgb: np.ndarray) -> Tensor:
        """Return the sum of the mean and the maximum of each channel (B, D), of uint8 (B, H, W, 3)."""
        features = self.maps(rgb)
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


ImageNetwork = ImageEncoder | TorchvisionEncoder


def image_network(network: Network, side: int) -> ImageNetwork:
    """Return the untrained network of a baseline, for images of a size in pixels."""
    return ImageEncoder() if network == "cnn" else TorchvisionEncoder(network, side)


class ClassBaseline(nn.Module):
    """Image in, classes out."""

    def __init__(self, choices: Choices, seed: int, image: ImageNetwork | None = None) -> None:
        super().__init__()
        self.image = image or ImageEncoder()
        self.heads = class_heads(self.image.width, choices, seed)

    def logits(self, rgb: np.ndarray) -> dict[str, Tensor]:
        """Return (B, K) per attribute."""
        features_BD = self.image(rgb)
        return {name: head(features_BD) for name, head in self.heads.items()}

    def loss(self, examples: Examples) -> Tensor:
        """Return the mean cross-entropy over the attributes."""
        return class_loss(self.logits(examples.rgb), examples)

    def predict(self, examples: Examples) -> dict[str, np.ndarray]:
        """Return the most likely class per attribute, int64 (N,)."""
        return most_likely(self.logits, examples)


class AnswerBaseline(nn.Module):
    """Image and bag of question words in, one of some answers out, e.g. those of the training set."""

    def __init__(self, answers: Sequence[str], text: TextCodec, image: ImageNetwork | None = None, width: int = 128) -> None:
        super().__init__()
        self.text = text
        self.answers = list(answers)
        self.image = image or ImageEncoder()
        self.words = nn.EmbeddingBag(text.vocabulary_size, width, mode="mean")
        self.head = nn.Sequential(
            nn.Linear(self.image.width + width, 2 * width), nn.GELU(), nn.Linear(2 * width, len(self.answers))
        )

    def logits(self, examples: Examples) -> Tensor:
        """Return (B, answers)."""
        tokens = [self.text.encode_caption(text) for text in examples.prompts]
        starts = np.cumsum([0, *map(len, tokens)])[:-1]
        ids, starts_B = torch.tensor(list(chain.from_iterable(tokens))), torch.from_numpy(starts)
        question_BD = self.words(ids.to(_device(self)), starts_B.to(_device(self)))
        return self.head(torch.cat([self.image(examples.rgb), question_BD], dim=1))

    def loss(self, examples: Examples) -> Tensor:
        """Return the cross-entropy of the answers, or the loss of soft targets where the examples have these."""
        if examples.labels:
            return answer_loss(self.logits(examples), examples.labels)
        answer_B = torch.tensor([self.answers.index(answer) for answer in examples.answers], device=_device(self))
        return functional.cross_entropy(self.logits(examples), answer_B)

    def predict(self, examples: Examples) -> list[str]:
        """Return the most likely answers."""
        return [self.answers[i] for i in self.logits(examples).argmax(dim=1).tolist()]


class CaptionBaseline(nn.Module):
    """Image in, caption out: a GRU over the caption's tokens with the image's vector as input at every step."""

    def __init__(self, text: TextCodec, max_tokens: int, image: ImageNetwork | None = None, width: int = 192) -> None:
        super().__init__()
        self.text, self.max_tokens = text, max_tokens
        self.image = image or ImageEncoder()
        self.project = nn.Linear(self.image.width, width)
        self.tokens = nn.Embedding(text.vocabulary_size, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, text.vocabulary_size)

    def loss(self, examples: Examples) -> Tensor:
        """Return the mean cross-entropy of the captions' tokens."""
        ids = [
            [self.text.sentinel_ids[1], *self.text.encode_caption(t)[: self.max_tokens - 1], self.text.eos_id]
            for t in examples.answers
        ]
        padded_BM = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=-100).to(
            _device(self)
        )
        hidden_BMD, _ = self.memory(self.tokens(padded_BM[:, :-1].clamp(min=0)) + self._image_vector(examples))
        return functional.cross_entropy(self.head(hidden_BMD).flatten(0, 1), padded_BM[:, 1:].flatten())

    def predict(self, examples: Examples) -> list[str]:
        """Return captions, generated greedily."""
        image_B1D, state = self._image_vector(examples), None
        token_B1 = torch.full((len(examples), 1), self.text.sentinel_ids[1], device=_device(self))
        tokens = []
        for _ in range(self.max_tokens):
            hidden_B1D, state = self.memory(self.tokens(token_B1) + image_B1D, state)
            token_B1 = self.head(hidden_B1D).argmax(dim=-1)
            tokens.append(token_B1)
        return [self.text.decode_caption(row) for row in torch.cat(tokens, dim=1).tolist()]

    def _image_vector(self, examples: Examples) -> Tensor:
        parts = [examples.rgb[first : first + PREDICTION_BATCH] for first in range(0, len(examples), PREDICTION_BATCH)]
        return self.project(torch.cat([self.image(part) for part in parts]))[:, None]


def muon_matrices(baseline: nn.Module) -> dict[str, int]:
    """Return the names of the parameters that Muon updates, with the number of matrices that each stacks.

    These are the convolution kernels of the small CNN, the gates of the GRU and the projection in front of it. With AdamW alone
    the GRU does not learn the form of a caption within the few steps of the comparison, and the baseline would score 0.
    Networks of torchvision and heads of maps and boxes are trained with AdamW, the latter as those on the transformer.
    """
    own = {module for part in baseline.modules() if isinstance(part, ImageEncoder) for module in part.modules()}
    matrices = {}
    for name, module in baseline.named_modules():
        if (isinstance(module, nn.Conv2d) and module in own) or name == "project":
            matrices[f"{name}.weight"] = 1
        elif isinstance(module, nn.GRU):
            weights = [parameter for parameter, _ in module.named_parameters() if parameter.startswith("weight")]
            matrices |= {f"{name}.{parameter}": 3 for parameter in weights}  # reset, update and new gate
    return matrices


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
