"""The 4M transformer, computed from the keys of a released file token by token in float64, without our modules.

A batch has the layout of the 4M code: by modality `tensor`, `input_mask`, `target_mask` (True: not used) and
`decoder_attention_mask`.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Batch = dict[str, dict[str, Tensor]]


@dataclass
class Slot:
    """One selected token: its source, content, position + modality, and target."""

    name: str
    source: int  # in its modality
    rank: int
    content: Tensor
    place: Tensor
    token: int = 0
    target: int = 0
    span: int = 0  # entry of the compressed attention mask


@dataclass
class Plain:
    tensors: dict[str, Tensor]
    values: dict
    types: dict[str, str]  # pixels, grid, sequence, vectors
    max_length: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = {key: tensor.double() for key, tensor in self.tensors.items()}

    # Layers ----------------------------------------------------------------------------------------------------------------

    def linear(self, p: str, x: Tensor) -> Tensor:
        y = x @ self.tensors[f"{p}.weight"].T
        return y + self.tensors[f"{p}.bias"] if f"{p}.bias" in self.tensors else y

    def norm(self, p: str, x: Tensor) -> Tensor:
        unit = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return unit * self.tensors[f"{p}.weight"] + self.tensors.get(f"{p}.bias", 0)

    def attend(self, p: str, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        outputs = []
        for q_h, k_h, v_h in zip(*(x.chunk(self.values["num_heads"], -1) for x in (q, k, v)), strict=True):
            if f"{p}.q_norm.weight" in self.tensors:
                q_h, k_h = self.norm(f"{p}.q_norm", q_h), self.norm(f"{p}.k_norm", k_h)
            scores = q_h @ k_h.T / math.sqrt(q_h.shape[1])
            scores = scores if seen is None else scores.masked_fill(~seen, -1e30)
            outputs.append(scores.softmax(-1) @ v_h)
        return self.linear(f"{p}.proj", torch.cat(outputs, -1))

    def feed_forward(self, p: str, x: Tensor) -> Tensor:
        hidden = getattr(F, self.values["act_layer"].lower())(self.linear(f"{p}.fc1", x))
        return self.linear(f"{p}.fc2", hidden * self.linear(f"{p}.fc3", x) if self.values["gated_mlp"] else hidden)

    # One sample ------------------------------------------------------------------------------------------------------------

    def inputs(self, batch: Batch, sample: int, most: int) -> list[Slot]:
        found = []
        for name, parts in batch.items():
            if not (start := self.side("encoder", name)):
                continue
            place = self.tensors[f"{start}.pos_emb"][0] + self.tensors[f"{start}.mod_emb"][0, 0]
            for rank, source in enumerate((~parts["input_mask"][sample]).nonzero()[:, 0].tolist()):
                row = rank if self.types[name] in ("sequence", "vectors") else source
                content, token = self.content(name, start, parts["tensor"][sample], source)
                found.append(Slot(name, source, rank, content, place[row], token))
        return found[:most]

    def content(self, name: str, start: str, tensor: Tensor, source: int) -> tuple[Tensor, int]:
        kind = self.types[name]
        if kind == "pixels":
            size = math.isqrt(self.tensors[f"{start}.proj.weight"].shape[1] // 3)
            row, column = divmod(source, tensor.shape[2] // size)
            patch = tensor[:, row * size : (row + 1) * size, column * size : (column + 1) * size].double()
            return self.linear(f"{start}.proj", patch.permute(1, 2, 0).flatten()), 0
        if kind == "vectors":
            x = tensor[source].double()
            two = f"{start}.emb_proj.0.weight" in self.tensors
            x = (
                self.linear(f"{start}.emb_proj.1", self.linear(f"{start}.emb_proj.0", x))
                if two
                else self.linear(f"{start}.emb_proj", x)
            )
            return x, source
        token = int(tensor.flatten()[source])
        return self.tensors[f"{start}.token_emb.weight"][token], token

    def targets(self, batch: Batch, sample: int, most: int) -> list[Slot]:
        found = []
        for name, parts in batch.items():
            if not (start := self.side("decoder", name)):
                continue
            places, own = self.tensors[f"{start}.pos_emb"][0], self.tensors[f"{start}.mod_emb"][0, 0]
            ids, span = parts["tensor"][sample].flatten().tolist(), parts["decoder_attention_mask"][sample].tolist()
            used = (~parts["target_mask"][sample]).nonzero()[:, 0].tolist()
            for rank, source in enumerate(used):
                if self.types[name] == "grid":
                    mask = self.tensors["mask_token"][0, 0]
                    found.append(Slot(name, source, rank, mask, places[source] + own, 0, ids[source], span[source]))
                elif source + 1 in used:
                    row = rank if rank < self.max_length[name] else 0
                    word = self.tensors[f"{start}.token_emb.weight"][ids[source]]
                    found.append(Slot(name, source, rank, word, places[row] + own, ids[source], ids[source + 1], span[source]))
        return found[:most]

    def side(self, side: str, name: str) -> str:
        return f"{side}_embeddings.{name}" if f"{side}_embeddings.{name}.pos_emb" in self.tensors else ""

    def sees(self, slots: list[Slot]) -> Tensor:
        reach = torch.tensor([slot.span for slot in slots]).cumsum(0)
        here = torch.arange(len(slots))
        seen = here[None] <= here[:, None] if self.values["decoder_causal_mask"] else here[None] < reach[:, None]
        if self.values["decoder_sep_mask"]:
            seen = seen & torch.tensor([[a.name == b.name for b in slots] for a in slots], dtype=torch.bool)
        return seen

    def forward(self, inputs: list[Slot], targets: list[Slot]) -> tuple[Tensor, Tensor, Tensor]:
        """Return encoder output (N, D) with registers first, context, decoder output (M, D)."""
        nothing = self.tensors["mask_token"].new_zeros(0, self.values["dim"])
        registers = self.tensors.get("register_tokens", nothing[None])[0]
        place = torch.cat([torch.zeros_like(registers), *(slot.place[None] for slot in inputs)])
        x = torch.cat([registers, *(slot.content[None] for slot in inputs)]) + place
        for i in range(self.values["encoder_depth"]):
            x = x + self.attend(
                f"encoder.{i}.attn", *self.linear(f"encoder.{i}.attn.qkv", self.norm(f"encoder.{i}.norm1", x)).chunk(3, -1)
            )
            x = x + self.feed_forward(f"encoder.{i}.mlp", self.norm(f"encoder.{i}.norm2", x))
        x = self.norm("encoder_norm", x)
        context = self.linear("decoder_proj_context", x) + place
        y = torch.stack([slot.content + slot.place for slot in targets]) if targets else nothing
        for i in range(self.values["decoder_depth"]):
            p = f"decoder.{i}"
            own = self.linear(f"{p}.self_attn.qkv", self.norm(f"{p}.norm1", y)).chunk(3, -1)
            y = y + self.attend(f"{p}.self_attn", *own, self.sees(targets))
            q = self.linear(f"{p}.cross_attn.q", self.norm(f"{p}.query_norm", y))
            k, v = self.linear(f"{p}.cross_attn.kv", self.norm(f"{p}.context_norm", context)).chunk(2, -1)
            y = y + self.attend(f"{p}.cross_attn", q, k, v)
            y = y + self.feed_forward(f"{p}.mlp", self.norm(f"{p}.norm2", y))
        return x, context, self.norm("decoder_norm", y)

    # A batch ---------------------------------------------------------------------------------------------------------------

    def run(self, batch: Batch, most_inputs: int, most_targets: int) -> dict:
        """Return slots, states, logits and targets by modality, and both losses in the arithmetic of the 4M code."""
        size = len(next(iter(batch.values()))["tensor"])
        sides = [(self.inputs(batch, b, most_inputs), self.targets(batch, b, most_targets)) for b in range(size)]
        states = [self.forward(*side) for side in sides]
        names = [name for name in batch if self.side("decoder", name)]
        logits, ids = {}, {}
        for name in names:
            rows = [
                (y, slot.target)
                for (_, out), (_, _, hidden) in zip(sides, states, strict=True)
                for slot, y in zip(out, hidden, strict=True)
                if slot.name == name
            ]
            if rows:
                head = self.tensors[f"decoder_embeddings.{name}.to_logits.weight"]
                logits[name], ids[name] = (
                    torch.stack([y for y, _ in rows]) @ head.T,
                    torch.tensor([target for _, target in rows]),
                )
        losses = {name: F.cross_entropy(logits[name], ids[name]) for name in logits}
        sizes = {name: logits[name].numel() for name in logits}
        return {
            "sides": sides,
            "states": states,
            "logits": logits,
            "ids": ids,
            "losses": losses,
            "modality": sum(losses.values()) / len(names),
            "token": sum(losses[name] * sizes[name] for name in losses) / sum(sizes.values()),
        }
