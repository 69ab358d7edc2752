"""Any modalities in, any out, as tokens: guidance, condition weights, chaining and seeds (4M, arXiv 2312.06647 §3.2).

Classifier-free guidance (arXiv 2207.12598): logits u + s · (c − u), where u are those of the request with emptied
conditions. Weighted conditions: u + Σ wᵢ · (cᵢ − u), where cᵢ has condition i alone and u has none; a negative weight
steers away from its condition.
"""

# B batch, L positions of a modality, R positions asked for, S steps, T tokens of a text, K ids that end it

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fourfold.generation.conditions import MISSING, Conditions, visible_batch, with_targets
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.grids import generate_grid
from fourfold.generation.joint import JointGrid, allows_joint_grids, predict_jointly
from fourfold.generation.sequences import CachedDecoder, generate_sequence, weighted
from fourfold.masking import spans
from fourfold.model.batch import MaskedBatch
from fourfold.model.fourm import Encoding, FourM
from fourfold.seeds import torch_generator

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class SpecialTokenIds:
    """Special ids of the text tokenizer that generation uses."""

    end: int  # EOS
    sentinels: tuple[int, ...]  # [S_0], [S_1], …

    @property
    def first_sentinel(self) -> int:
        """`[S_1]`: the first input token of a text that is generated as a whole."""
        return self.sentinels[1]

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids that end a text that is generated as a whole."""
        return (self.end, *self.sentinels)


@dataclass(frozen=True)
class _Branch:
    """One forward pass of a guided request: its weight and its conditions."""

    weight: float
    conditions: Conditions


@torch.inference_mode()
def generate_tokens(
    model: FourM,
    conditions: Conditions,
    targets: Sequence[str],
    seeds: Sequence[int],
    config: GenerationConfig,
    special_ids: SpecialTokenIds,
    weights: Mapping[str, float] | None = None,
) -> Conditions:
    """Return the tokens of each target modality: grids (B, L), sequences (B, T) without stop id, padded with 0.

    Args:
        model: in evaluation mode.
        conditions: tokens by modality. Samples may have different conditions. A target among the conditions is partly
            given: MISSING tokens of a grid are filled, and each sentinel of a text (with EOS) is replaced by generated
            words.
        targets: modalities, generated in this order.
        seeds: one for each sample, so B = len(seeds). A sample's result depends only on its own seed and conditions.
        config: how targets are generated.
        special_ids: those of the text tokenizer.
        weights: by condition, 1 for those not named; they replace `guidance` by weighted conditions.

    Raises:
        ValueError: the model does not have a modality or cannot predict it, or a weight names no condition.
    """
    generated: Conditions = {}
    request = _Request(model, seeds, config, special_ids, dict(weights or {}))
    known = {name: value.to(model.device) for name, value in conditions.items()}
    planned = [(config.via_of(name, model.config.names), name) for name in targets]
    request.check_weights({*conditions, *targets, *(step for steps, _ in planned for step in steps)})
    jointly = request.answer_jointly(targets, known) if request.has_equal_conditions(planned) else {}
    for steps, name in planned:
        if name in jointly:
            generated[name] = jointly[name]
            continue
        for step in steps:
            if step not in known:
                known[step] = request.as_condition(step, request.answer(step, known))
        generated[name] = request.answer(name, known)
        if config.chain:
            known[name] = request.as_condition(name, generated[name])
    return generated


def append_end(ids_BL: Tensor, end: int) -> Tensor:
    """Return sequences (B, L + 1) with the end id after the last token of each."""
    longer = torch.nn.functional.pad(ids_BL, (0, 1))
    return longer.scatter(1, (ids_BL > 0).sum(1, keepdim=True), end)


class _Request:
    """One call of `generate_tokens`; encodings are cached, since targets that are not chained share them."""

    def __init__(
        self,
        model: FourM,
        seeds: Sequence[int],
        config: GenerationConfig,
        special_ids: SpecialTokenIds,
        weights: dict[str, float],
    ):
        self.model, self.seeds, self.config, self.special_ids, self.weights = model, seeds, config, special_ids, weights
        self._encoded: list[tuple[Conditions, MaskedBatch, Encoding]] = []

    def check_weights(self, allowed: set[str]) -> None:
        """Raise ValueError for a weight of a modality that is not, and does not become, a condition."""
        if unused := sorted(set(self.weights) - allowed):
            raise ValueError(f"Weights name {', '.join(unused)}; allowed: the conditions {', '.join(sorted(allowed))}.")

    def as_condition(self, name: str, tokens: Tensor) -> Tensor:
        """Return a finished target as a condition: a text gets its end id again."""
        return append_end(tokens, self.special_ids.end) if self._is_text(name) else tokens

    def answer(self, name: str, conditions: Conditions) -> Tensor:
        """Return the tokens of one target; samples that lack different amounts of it are generated separately."""
        modality = self.model.config.modality(name)
        if modality.input_only:
            raise ValueError(f"{name!r} are {modality.kind}, which are input only. Choose a grid of tokens, e.g. 'tok_rgb'.")
        answer = self._sequence if modality.kind == "sequence" else self._grid
        lacking = [0] * len(self.seeds) if name not in conditions else self._lacking(name, conditions[name])
        if len(set(lacking)) <= 1:
            return answer(name, conditions)
        parts: list[tuple[int, Tensor]] = []
        for amount in sorted(set(lacking)):
            rows = [row for row, found in enumerate(lacking) if found == amount]
            alike = _Request(self.model, [self.seeds[row] for row in rows], self.config, self.special_ids, self.weights)
            found = alike.answer(name, {known: value[rows] for known, value in conditions.items()})
            parts += zip(rows, found, strict=True)
        return torch.nn.utils.rnn.pad_sequence([tokens for _, tokens in sorted(parts, key=lambda part: part[0])], True)

    def _lacking(self, name: str, value: Tensor) -> list[int]:
        """Return how much of a target each sample lacks: grid tokens; for texts 0 nothing, 1 some gaps, 2 everything."""
        if not self._is_text(name):
            return (value.flatten(1) == MISSING).sum(1).tolist()
        gaps_B, given_B = (self._is_sentinel(value) > 0).any(1), (value > 0).any(1)
        return torch.where(given_B, gaps_B.long(), 2).tolist()

    def has_equal_conditions(self, planned: Sequence[tuple[Sequence[str], str]]) -> bool:
        """Return whether `config.together` applies: no target becomes a condition of another one, and no weights are given."""
        becomes_condition = self.config.chain or any(steps for steps, _ in planned)
        return self.config.together and not becomes_condition and not self.weights and allows_joint_grids(self.model.config)

    def answer_jointly(self, names: Sequence[str], conditions: Conditions) -> Conditions:
        """Return the tokens of those targets that are grids of one step without guidance, from one pass of the decoder."""
        grids = []
        for name in dict.fromkeys(names):
            modality = self.model.config.modality(name)
            settings = self.config.of(name, modality.kind)
            if modality.kind == "grid" and not modality.input_only and settings.steps == 1 and settings.guidance == 1:
                order_BL, uniform_BSL = self._drawn(name, settings)
                tokens_BL = conditions[name].flatten(1) if name in conditions else torch.full_like(order_BL, MISSING)
                grids.append(JointGrid(name, tokens_BL, settings, uniform_BSL[:, 0]))
        return predict_jointly(self.model, *self._encode(conditions), grids)

    def _drawn(self, name: str, settings: TargetConfig) -> tuple[Tensor, Tensor]:
        """Return the random order (B, L) of a grid's positions, and numbers (B, S, L) in [0, 1)."""
        length = self.model.config.modality(name).num_positions
        generators = [torch_generator(seed, "generation", name) for seed in self.seeds]
        order_BL = torch.stack([torch.randperm(length, generator=g) for g in generators])
        uniform_BSL = torch.stack([torch.rand(settings.steps, length, generator=g) for g in generators])
        return order_BL.to(self.model.device), uniform_BSL.to(self.model.device)

    def _grid(self, name: str, conditions: Conditions) -> Tensor:
        settings = self.config.of(name, self.model.config.modality(name).kind)
        order_BL, uniform_BSL = self._drawn(name, settings)
        tokens_BL = conditions[name].flatten(1) if name in conditions else torch.full_like(order_BL, MISSING)
        return generate_grid(_GridPredictor(self, name, conditions, settings), tokens_BL, settings, order_BL, uniform_BSL)

    def _sequence(self, name: str, conditions: Conditions) -> Tensor:
        lacks = 2 if name not in conditions else max(self._lacking(name, conditions[name]))
        settings = self.config.of(name, "sequence")
        places = self.model.config.modality(name).num_positions
        length = min(places, settings.max_tokens or places)
        generators = [torch_generator(seed, "generation", name) for seed in self.seeds]
        uniform_BL = torch.stack([torch.rand(length, generator=g) for g in generators]).to(self.model.device)
        shown = conditions | self._sentinel(name) if lacks == 2 else conditions
        if lacks == 0:
            return self._joined(conditions[name], torch.zeros_like(conditions[name][:, :0]))
        decoders = [
            (branch.weight, CachedDecoder(self.model, self._encode(branch.conditions)[1], name))
            for branch in self._branches(name, shown, settings)
        ]
        stops_BK = self._stops(None if lacks == 2 else conditions[name])
        generated_BT = generate_sequence(decoders, self.special_ids.first_sentinel, stops_BK, settings, uniform_BL)
        return generated_BT if lacks == 2 else self._joined(conditions[name], generated_BT)

    def _stops(self, given_BT: Tensor | None) -> Tensor:
        """Return the ids (B, K) that end each text: EOS or any sentinel, or the sentinel after those of a given text."""
        if given_BT is None:
            return torch.tensor(self.special_ids.stops, device=self.model.device).expand(len(self.seeds), -1)
        gaps = self._is_sentinel(given_BT).sum(1).tolist()
        if max(gaps) + 2 > len(self.special_ids.sentinels):
            raise ValueError(f"A text has {max(gaps)} gaps; allowed: up to {len(self.special_ids.sentinels) - 2}.")
        return torch.tensor([[self.special_ids.sentinels[count + 1]] for count in gaps], device=self.model.device)

    def _joined(self, given_BT: Tensor, generated_BT: Tensor) -> Tensor:
        """Return the given texts with generated words in place of their sentinels, without EOS, padded with 0."""
        special = spans.SentinelIds(self.special_ids.end, self.special_ids.sentinels[1:])
        rows = []
        for given, found in zip(given_BT.tolist(), generated_BT.tolist(), strict=True):
            ids = [token for token in spans.merge_spans(given, [self.special_ids.first_sentinel, *found], special) if token]
            rows.append(torch.tensor(ids[: ids.index(special.eos)] if special.eos in ids else ids, dtype=torch.int64))
        return torch.nn.utils.rnn.pad_sequence(rows, True).to(self.model.device)

    def _is_sentinel(self, ids: Tensor) -> Tensor:
        return torch.isin(ids, torch.tensor(self.special_ids.sentinels, device=ids.device))

    def _is_text(self, name: str) -> bool:
        return self.model.config.modality(name).kind == "sequence"

    def branch_logits(self, name: str, conditions: Conditions, settings: TargetConfig, asked_BR: Tensor) -> Tensor:
        """Return the guided logits (B, R, V) of some positions of a grid."""
        total: Tensor | None = None
        for branch in self._branches(name, conditions, settings):
            batch, encoding = self._encode(branch.conditions)
            hidden_BRD = self.model.decode(with_targets(batch, self.model.config.index(name), asked_BR), encoding)
            logits_BRV = weighted(branch.weight, self.model.logits(hidden_BRD, name))
            total = logits_BRV if total is None else total + logits_BRV
        assert total is not None
        return total

    def _branches(self, name: str, conditions: Conditions, settings: TargetConfig) -> list[_Branch]:
        """Split a request into weighted passes; all of them show the target's own tokens."""
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
        """Return what replaces an emptied condition: a sentinel (texts), one zero vector (vectors), None (grids)."""
        modality = self.model.config.modality(name)
        if not self.config.show_sentinel or modality.kind not in ("sequence", "vectors"):
            return None
        if modality.kind == "sequence":
            return self._sentinel(name)[name]
        # A row of exact zeros would count as not given; this one also projects to the bias alone.
        return torch.full((len(self.seeds), 1, modality.vector_width or 0), TINY, device=self.model.device)

    def _sentinel(self, name: str) -> Conditions:
        """Return the input for a text that is generated as a whole: its first sentinel, or nothing."""
        if not self.config.show_sentinel:
            return {}
        return {name: torch.full((len(self.seeds), 1), self.special_ids.first_sentinel, device=self.model.device)}

    def _encode(self, conditions: Conditions) -> tuple[MaskedBatch, Encoding]:
        """Return the model input and the encoding of conditions, cached for the last few."""
        for known, batch, encoding in self._encoded:
            if known.keys() == conditions.keys() and all(known[name] is conditions[name] for name in known):
                return batch, encoding
        batch = visible_batch(conditions, self.model.config, len(self.seeds), self.model.device)
        encoding = self.model.encode(batch)
        self._encoded = [*self._encoded[-3:], (conditions, batch, encoding)]
        return batch, encoding


@dataclass(frozen=True)
class _GridPredictor:
    """The `Predict` function of one target."""

    request: _Request
    name: str
    conditions: Conditions
    settings: TargetConfig

    def __call__(self, tokens_BL: Tensor, asked_BR: Tensor) -> Tensor:
        """Return the logits (B, R, V) of positions `asked_BR`, given the conditions and the target's tokens so far."""
        shown = {name: value for name, value in self.conditions.items() if name != self.name}
        if bool((tokens_BL != MISSING).any()):
            shown = shown | {self.name: tokens_BL.clone()}  # a copy: encodings are cached by identity
        return self.request.branch_logits(self.name, shown, self.settings, asked_BR)
