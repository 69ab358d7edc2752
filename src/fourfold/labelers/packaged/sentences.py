"""Sentence embeddings by MiniLM: a small BERT (arXiv 1810.04805) whose tokens are averaged, as in arXiv 1908.10084."""

# B texts, L tokens, D width, h heads

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

NUM_HEADS = 12
EPSILON = 1e-12
MAX_TOKENS = 128
CHUNK = 64  # texts at once


class SentenceEncoder:
    """A sentence encoder with its weights and vocabulary."""

    def __init__(self, weights: Mapping[str, Tensor], tokenizer: Tokenizer) -> None:
        self.weights, self.tokenizer = weights, tokenizer
        self.num_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding(length=None)

    @classmethod
    def load(cls, folder: Path) -> "SentenceEncoder":
        """Read `model.safetensors` and `tokenizer.json`."""
        return cls(load_file(folder / "model.safetensors"), Tokenizer.from_file(str(folder / "tokenizer.json")))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (B, D) float32."""
        parts = [self._encode(list(texts[start : start + CHUNK])) for start in range(0, len(texts), CHUNK)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self._width), np.float32)

    @property
    def _width(self) -> int:
        return int(self.weights["embeddings.word_embeddings.weight"].shape[1])

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Tensor:
        encoded = self.tokenizer.encode_batch(texts)
        ids_BL = torch.tensor([one.ids for one in encoded])
        keep_BL = torch.tensor([one.attention_mask for one in encoded], dtype=torch.bool)
        w = self.weights
        x_BLD = w["embeddings.word_embeddings.weight"][ids_BL]
        x_BLD = (
            x_BLD
            + w["embeddings.position_embeddings.weight"][: ids_BL.shape[1]]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x_BLD = self._norm(x_BLD, "embeddings.LayerNorm")
        for index in range(self.num_layers):
            x_BLD = self._layer(x_BLD, keep_BL, f"encoder.layer.{index}")
        kept_BL1 = keep_BL[..., None].float()
        return F.normalize((x_BLD * kept_BL1).sum(1) / kept_BL1.sum(1), dim=-1)

    def _layer(self, x_BLD: Tensor, keep_BL: Tensor, name: str) -> Tensor:
        B, L, D = x_BLD.shape
        parts = (self._linear(x_BLD, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        query, key, value = (part.view(B, L, NUM_HEADS, D // NUM_HEADS).transpose(1, 2) for part in parts)
        mixed_BhLd = F.scaled_dot_product_attention(query, key, value, attn_mask=keep_BL[:, None, None])
        mixed_BLD = self._linear(mixed_BhLd.transpose(1, 2).reshape(B, L, D), f"{name}.attention.output.dense")
        x_BLD = self._norm(mixed_BLD + x_BLD, f"{name}.attention.output.LayerNorm")
        inner = self._linear(F.gelu(self._linear(x_BLD, f"{name}.intermediate.dense")), f"{name}.output.dense")
        return self._norm(inner + x_BLD, f"{name}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, EPSILON)
