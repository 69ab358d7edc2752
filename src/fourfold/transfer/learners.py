"""4M as a learner of transfer tasks: text in, text out, or pooled encoder features under a head.

A text task is the span filling of pretraining (4M, arXiv 2312.06647, section 2.2): the prompt ends in a sentinel, and the
answer, generated greedily, is what the sentinel stands for.
"""

# B samples, N input slots, M target slots, D width, P patches, K classes, V vocabulary

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.generation.config import TargetConfig, find_modality
from fourfold.generation.sequences import CachedDecoder, generate_sequence
from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.fourm import FourM
from fourfold.model.layers import NORM_EPSILON
from fourfold.seeds import torch_generator
from fourfold.transfer.recipes import Pooling
from fourfold.transfer.tasks import Choices, Examples

GREEDY = TargetConfig(temperature=0)
PREDICTION_BATCH = 100  # samples per forward pass when predicting


class TextCodec(Protocol):
    """The part of the text tokenizer that tasks need."""

    @property
    def eos_id(self) -> int:
        """The id that ends a text."""

    @property
    def vocabulary_size(self) -> int:
        """The number of ids."""

    @property
    def sentinel_ids(self) -> Any:
        """The ids of `[S_0]`, `[S_1]`, ..."""

    def encode_caption(self, text: str) -> list[int]:
        """Return token ids, without EOS."""

    def decode_caption(self, ids: Any) -> str:
        """Return the text of token ids up to the first EOS."""


class TextLearner(nn.Module):
    """Prompt and image in, text out."""

    def __init__(self, model: FourM, text: TextCodec, max_tokens: int) -> None:
        super().__init__()
        self.model, self.text = model, text
        limit = model.config.modality("caption").num_positions
        self.max_tokens = min(max_tokens, limit - 1)
        self.start = text.sentinel_ids[1]  # the first sentinel of masking; 0 is not used there

    def loss(self, examples: Examples) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens."""
        return self.model(self.batch(examples)).total

    def predict(self, examples: Examples) -> list[str]:
        """Return the answers, generated greedily."""
        answers: list[str] = []
        for first in range(0, len(examples), PREDICTION_BATCH):
            part = examples.subset(np.arange(first, min(first + PREDICTION_BATCH, len(examples))))
            decoder = CachedDecoder(self.model, self.model.encode(self.batch(part)), "caption")
            # Temperature 0 reads no random numbers.
            unused_BM = torch.zeros(len(part), self.max_tokens, device=self.model.device)
            stops_BK = torch.tensor([[self.text.eos_id]], device=self.model.device)
            tokens_BM = generate_sequence([(1.0, decoder)], self.start, stops_BK, GREEDY, unused_BM)
            answers += [self.text.decode_caption(row) for row in tokens_BM.tolist()]
        return answers

    def batch(self, examples: Examples) -> MaskedBatch:
        """Return all patches and the prompt with its sentinel as input, the answer and EOS as target."""
        prompts = [[*self.text.encode_caption(text), self.start] for text in examples.prompts]
        answers = [self.text.encode_caption(text)[: self.max_tokens - 1] for text in examples.answers]
        before = [[self.start, *answer] for answer in answers]
        after = [[*answer, self.text.eos_id] for answer in answers]
        return _batch(self.model, examples.rgb, prompts, before, after)


class ClassLearner(nn.Module):
    """Image in, classes out; the decoder is discarded, as in 4M (appendix B): pool → norm → linear.

    The default pooling differs from the mean-pool → layer norm of 4M (`pooling: mean`) in two ways, which help every arm here.
    The maximum of each channel is concatenated with its mean, since objects are a small share of the patches. Each pooled
    channel is standardized over the batch (the parameter-free batch norm of MAE's probes, arXiv 2111.06377), since the
    variation between images is small compared with what they share.
    """

    def __init__(self, model: FourM, choices: Choices, seed: int, pooling: Pooling = "mean_and_max") -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        dim = model.config.dim
        width = dim if pooling == "mean" else 2 * dim
        self.norm = nn.LayerNorm(dim, eps=NORM_EPSILON) if pooling == "mean" else nn.BatchNorm1d(width, affine=False)
        self.heads = class_heads(width, choices, seed)

    def logits(self, rgb: np.ndarray) -> dict[str, Tensor]:
        """Return (B, K) per attribute."""
        encoding = self.model.encode(image_batch(self.model, rgb))
        pooled_BD = encoding.features_BND.mean(dim=1)
        if self.pooling == "mean_and_max":
            pooled_BD = torch.cat([pooled_BD, encoding.features_BND.amax(dim=1)], dim=1)
        normed_BD = self.norm(pooled_BD)
        return {name: head(normed_BD) for name, head in self.heads.items()}

    def loss(self, examples: Examples) -> Tensor:
        """Return the mean cross-entropy over the attributes."""
        return class_loss(self.logits(examples.rgb), examples)

    def predict(self, examples: Examples) -> dict[str, np.ndarray]:
        """Return the most likely class per attribute, int64 (N,)."""
        return most_likely(self.logits, examples)


class AnswerLearner(nn.Module):
    """Image and question in, one of some answers out; the decoder is discarded.

    The answer is a class, as in the literature on VQAv2: mean of the patches and mean of the words of the question →
    linear → layer norm → GELU → linear, the head of ViLT (arXiv 2102.03334) on the encoder's features.
    """

    def __init__(self, model: FourM, text: TextCodec, answers: Sequence[str]) -> None:
        super().__init__()
        self.model, self.text, self.answers = model, text, list(answers)
        self.max_tokens = model.config.modality("caption").num_positions
        width = 2 * model.config.dim
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width, eps=NORM_EPSILON), nn.GELU(), nn.Linear(width, len(self.answers))
        )

    def logits(self, examples: Examples) -> Tensor:
        """Return (B, K), one for each answer."""
        prompts = [self.text.encode_caption(text)[: self.max_tokens] for text in examples.prompts]
        nothing: list[list[int]] = [[]] * len(examples)
        encoding = self.model.encode(_batch(self.model, examples.rgb, prompts, nothing, nothing))
        num_patches = self.model.config.modality(find_modality("rgb", self.model.config.names)).num_positions
        words_BND = encoding.features_BND[:, num_patches:]  # zeros after the end of a question
        count_B1 = encoding.keep_BN[:, num_patches:].sum(dim=1, keepdim=True).clamp(min=1)
        pooled_BD = torch.cat([encoding.features_BND[:, :num_patches].mean(dim=1), words_BND.sum(dim=1) / count_B1], dim=1)
        return self.head(pooled_BD)

    def loss(self, examples: Examples) -> Tensor:
        """Return the loss of the soft targets, `labels`."""
        return answer_loss(self.logits(examples), examples.labels)

    def predict(self, examples: Examples) -> list[str]:
        """Return the most likely answers."""
        parts = [
            self.logits(examples.subset(np.arange(first, min(first + PREDICTION_BATCH, len(examples)))))
            for first in range(0, len(examples), PREDICTION_BATCH)
        ]
        return [self.answers[i] for part in parts for i in part.argmax(dim=1).tolist()]


def answer_loss(logits_BK: Tensor, targets: Sequence[Mapping[int, float]]) -> Tensor:
    """Return the binary cross-entropy of soft targets, summed over the answers, mean over the batch.

    This is the loss of Teney et al. 2017 (arXiv 1708.02711) and of the work on VQAv2 that followed.

    Args:
        logits_BK: one for each answer.
        targets: of each question, the targets of some answers, 0 to 1, by their index; those of the others are 0.
    """
    wanted_BK = torch.zeros(logits_BK.shape)
    for row, target in enumerate(targets):
        for index, score in target.items():
            wanted_BK[row, index] = score
    each_BK = functional.binary_cross_entropy_with_logits(logits_BK.float(), wanted_BK.to(logits_BK.device), reduction="none")
    return each_BK.sum(dim=1).mean()


def class_heads(width: int, choices: Choices, seed: int) -> nn.ModuleDict:
    """Return one linear head per attribute, with small weights drawn from a seed."""
    heads = nn.ModuleDict({name: nn.Linear(width, len(classes)) for name, classes in choices.items()})
    generator = torch_generator(seed, "transfer", "heads")
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_(std=0.02 if parameter.ndim == 2 else 0, generator=generator)
    return heads


def class_loss(logits: dict[str, Tensor], examples: Examples, smoothing: float = 0.0) -> Tensor:
    """Return the mean over attributes of the cross-entropy of logits (B, K), with smoothed labels (arXiv 1512.00567)."""
    truth = {name: torch.from_numpy(column).to(logits[name].device) for name, column in examples.classes.items()}
    each = [functional.cross_entropy(logits[name], ids, label_smoothing=smoothing) for name, ids in truth.items()]
    return torch.stack(each).mean()


def most_likely(logits: Any, examples: Examples) -> dict[str, np.ndarray]:
    """Return, per attribute, the arg-max (N,) of `logits(rgb)`, computed batch by batch."""
    parts = [logits(examples.rgb[first : first + PREDICTION_BATCH]) for first in range(0, len(examples), PREDICTION_BATCH)]
    return {name: torch.cat([part[name] for part in parts]).argmax(dim=1).cpu().numpy() for name in parts[0]}


def image_batch(model: FourM, rgb: np.ndarray) -> MaskedBatch:
    """Return a batch with all patches of images uint8 (B, H, W, 3) as input, and nothing to predict."""
    nothing: list[list[int]] = [[]] * len(rgb)
    return _batch(model, rgb, nothing, nothing, nothing)


def _batch(
    model: FourM, rgb: np.ndarray, prompts: list[list[int]], before: list[list[int]], after: list[list[int]]
) -> MaskedBatch:
    """Return a batch with all patches and the `prompts` as input; the decoder reads `before` and predicts `after`."""
    rgb_name = find_modality("rgb", model.config.names)
    pixels, caption = model.config.index(rgb_name), model.config.index("caption")
    num_patches = model.config.modality(rgb_name).num_positions
    if rgb.shape[1:3] != model.config.pixel_sizes[rgb_name]:
        height, width = model.config.pixel_sizes[rgb_name]
        raise ValueError(
            f"The images have {rgb.shape[1]} × {rgb.shape[2]} pixels; the model needs {height} × {width}. Set "
            "ingestion.image_size to that of the model, or image_size of the arm in finetuning.arms."
        )
    patch_BP = torch.arange(num_patches).expand(len(rgb), -1)
    prompt_BN, prompt_modality_BN, prompt_position_BN = _padded(prompts, caption)
    before_BM, target_modality_BM, target_position_BM = _padded(before, caption)
    return MaskedBatch(
        input_modality_BN=torch.cat([torch.full_like(patch_BP, pixels), prompt_modality_BN], dim=1),
        input_position_BN=torch.cat([patch_BP, prompt_position_BN], dim=1),
        input_token_BN=torch.cat([torch.zeros_like(patch_BP), prompt_BN], dim=1),
        target_modality_BM=target_modality_BM,
        target_position_BM=target_position_BM,
        target_input_BM=before_BM,
        target_id_BM=_padded(after, caption)[0],
        pixels_BHWC=torch.from_numpy(np.ascontiguousarray(rgb)),
    ).to(model.device)


def _padded(rows: list[list[int]], modality: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, modality and position of some sequences, int64 (B, longest)."""
    length = max((len(row) for row in rows), default=0)
    token = torch.zeros(len(rows), length, dtype=torch.int64)
    keep = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        token[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        keep[index, : len(row)] = True
    position = torch.arange(length).expand(len(rows), -1)
    return token, torch.where(keep, modality, PADDING_MODALITY), torch.where(keep, position, 0)
