"""Any modalities in, any out, in tokens: the one place that knows guidance, weights, chaining and seeds.

Guidance (classifier-free): u + s · (c − u), u the same request with its conditions emptied. Weighted: u + Σ wᵢ · (cᵢ − u),
cᵢ with condition i alone, u with none; negative weights push away (4M-7 §3.2).
"""

# B batch, L places of a modality, R places asked for, S steps

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fourfold.generation.conditions import UNKNOWN, Conditions, visible_batch, with_targets
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.grids import generate_grid
from fourfold.generation.sequences import CachedDecoder, generate_sequence
from fourfold.model.batch import MaskedBatch
from fourfold.model.fourm import Encoding, FourM
from fourfold.seeds import torch_generator


@dataclass(frozen=True)
class SpecialIds:
    """The ids of the text tokenizer that generation must know."""

    end: int  # EOS
    sentinels: tuple[int, ...]  # [S_0], [S_1], …

    @property
    def first_sentinel(self) -> int:
        """`[S_1]`: what a text that is wholly asked for starts from."""
        return self.sentinels[1]

    @property
    def stops(self) -> tuple[int, ...]:
        """What ends a text."""
        return (self.end, *self.sentinels)


@dataclass(frozen=True)
class _Branch:
    """One forward pass of a guided request: its weight and what it shows."""

    weight: float
    conditions: Conditions


@torch.inference_mode()
def generate(
    model: FourM,
    conditions: Conditions,
    targets: Sequence[str],
    seeds: Sequence[int],
    config: GenerationConfig,
    special_ids: SpecialIds,
    weights: Mapping[str, float] | None = None,
) -> Conditions:
    """Return the tokens of each target modality: grids (B, L), sequences (B, T) without stop id, padded with 0.

    `seeds`: one per sample, so B = len(seeds); a sample's result depends on its own seed and conditions only. A target among
    the conditions is partly given: its UNKNOWN places are filled. `weights` by condition switch to weighted guidance.
    """
    answered: Conditions = {}
    request = _Request(model, seeds, config, special_ids, dict(weights or {}))
    known = dict(conditions)
    for name in targets:
        answered[name] = request.answer(name, known)
        if config.chain:
            ended = model.config.modality(name).kind == "sequence"
            known[name] = append_end(answered[name], special_ids.end) if ended else answered[name]
    return answered


def append_end(ids_BL: Tensor, end: int) -> Tensor:
    """Return sequences (B, L + 1) with the end id after their last token."""
    longer = torch.nn.functional.pad(ids_BL, (0, 1))
    return longer.scatter(1, (ids_BL > 0).sum(1, keepdim=True), end)


class _Request:
    def __init__(
        self,
        model: FourM,
        seeds: Sequence[int],
        config: GenerationConfig,
        special_ids: SpecialIds,
        weights: dict[str, float],
    ):
        self.model, self.seeds, self.config, self.special_ids, self.weights = model, seeds, config, special_ids, weights
        self._encoded: list[tuple[Conditions, MaskedBatch, Encoding]] = []

    def answer(self, name: str, conditions: Conditions) -> Tensor:
        """Return the tokens of one target."""
        modality = self.model.config.modality(name)
        if modality.kind == "pixels":
            raise ValueError(f"{name!r} are pixels, which are input only. Ask for a grid of tokens, e.g. 'tok_rgb'.")
        settings = self.config.of(name, modality.kind)
        length = modality.num_positions
        generators = [torch_generator(seed, "generation", name) for seed in self.seeds]
        if modality.kind == "sequence":
            length = min(length, settings.max_tokens or length)
            shown = conditions | self._sentinel(name)
            uniform_BL = torch.stack([torch.rand(length, generator=g) for g in generators]).to(self.model.device)
            decoders = [
                (branch.weight, CachedDecoder(self.model, self._encode(branch.conditions)[1], name))
                for branch in self._branches(name, shown, settings)
            ]
            return generate_sequence(decoders, self.special_ids.first_sentinel, self.special_ids.stops, settings, uniform_BL)
        order_BL = torch.stack([torch.randperm(length, generator=g) for g in generators]).to(self.model.device)
        uniform = torch.stack([torch.rand(settings.steps, length, generator=g) for g in generators]).to(self.model.device)
        tokens_BL = conditions[name].flatten(1) if name in conditions else torch.full_like(order_BL, UNKNOWN)
        return generate_grid(_GridPredictor(self, name, conditions, settings), tokens_BL, settings, order_BL, uniform)

    def branch_logits(self, name: str, conditions: Conditions, settings: TargetConfig, asked_BR: Tensor) -> Tensor:
        """Return the guided (B, R, V) logits of some places of a grid."""
        total: Tensor | None = None
        for branch in self._branches(name, conditions, settings):
            batch, encoding = self._encode(branch.conditions)
            hidden_BRD = self.model.decode(with_targets(batch, self.model.config.index(name), asked_BR), encoding)
            logits_BRV = branch.weight * self.model.logits(hidden_BRD, name)
            total = logits_BRV if total is None else total + logits_BRV
        assert total is not None
        return total

    def _branches(self, name: str, conditions: Conditions, settings: TargetConfig) -> list[_Branch]:
        """Split a request into weighted passes; the target's own tokens are shown in all of them."""
        own = {name: conditions[name]} if name in conditions else {}
        others = {other: value for other, value in conditions.items() if other != name}
        if self.weights:
            chosen = [_Branch(self.weights.get(other, 1.0), own | {other: value}) for other, value in others.items()]
            return [*chosen, _Branch(1 - sum(branch.weight for branch in chosen), own)]
        if settings.guidance == 1 or not others:
            return [_Branch(1.0, conditions)]
        emptied = {other: value for other in others for value in [self._emptied(other)] if value is not None}
        return [_Branch(settings.guidance, conditions), _Branch(1 - settings.guidance, own | emptied)]

    def _emptied(self, name: str) -> Tensor | None:
        is_text = self.model.config.modality(name).kind == "sequence"
        return self._sentinel(name)[name] if is_text and self.config.show_sentinel else None

    def _sentinel(self, name: str) -> Conditions:
        """Return the input of a text that is wholly asked for: its first sentinel, or nothing (the paper's budget 0)."""
        if not self.config.show_sentinel:
            return {}
        return {name: torch.full((len(self.seeds), 1), self.special_ids.first_sentinel, device=self.model.device)}

    def _encode(self, conditions: Conditions) -> tuple[MaskedBatch, Encoding]:
        """Return the encoding of some conditions; the last few are kept, since unchained targets share theirs."""
        for known, batch, encoding in self._encoded:
            if known.keys() == conditions.keys() and all(known[name] is conditions[name] for name in known):
                return batch, encoding
        batch = visible_batch(conditions, self.model.config, len(self.seeds), self.model.device)
        encoding = self.model.encode(batch)
        self._encoded = [*self._encoded[-3:], (conditions, batch, encoding)]
        return batch, encoding


@dataclass(frozen=True)
class _GridPredictor:
    request: _Request
    name: str
    conditions: Conditions
    settings: TargetConfig

    def __call__(self, tokens_BL: Tensor, asked_BR: Tensor) -> Tensor:
        """Return logits of `asked_BR`, given the conditions and what is there of the target itself."""
        shown = {name: value for name, value in self.conditions.items() if name != self.name}
        if bool((tokens_BL != UNKNOWN).any()):
            shown = shown | {self.name: tokens_BL.clone()}  # a copy: encodings are remembered by identity
        return self.request.branch_logits(self.name, shown, self.settings, asked_BR)
