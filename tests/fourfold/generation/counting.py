"""A tiny any-to-any model with tokenizers that a reader can decode by eye."""

import numpy as np

from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.storage import read_json, write_json

CONFIG = ModelConfig(
    modalities=(
        ModalityConfig(name="rgb", kind="pixels", grid=(2, 2)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=16, grid=(2, 2)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=40, max_length=9),
    ),
    dim=16, encoder_depth=1, decoder_depth=1, num_heads=2, patch_size=4, embedding_std=0.7,
)  # fmt: skip


class CountingTokenizers:
    """Depth tokens are meters; a caption's ids are the lengths of its words + 6."""

    visual: dict = {}  # noqa: RUF012

    class text:  # noqa: N801
        eos_id, sentinel_ids = 3, [4, 5, 6, 39]

        @staticmethod
        def encode_caption(text):
            return [len(word) + 6 for word in text.split()]

    def grids(self):
        return {"tok_depth": (2, 2)}

    def tokens(self, name, values):
        if name == "depth":
            return np.asarray(values).reshape(len(values), -1).astype(np.int16)
        if name == "rgb":  # the first of each 4 × 4 pixels, in 16 steps
            return (np.asarray(values)[:, ::4, ::4, 0] // 16).reshape(len(values), -1).astype(np.int16)
        rows = [self.text.encode_caption(text) for text in values]
        return np.array([row + [0] * (5 - len(row)) for row in rows], np.int16)

    def decode(self, name, tokens):
        if name == "depth":
            return tokens.reshape(-1, 2, 2).astype(np.float16)
        if name == "clip":
            return np.stack([np.sin(tokens * rate) for rate in (0.1, 0.7, 1.3)], axis=-1).reshape(-1, 2, 2, 3)
        return [" ".join("x" * max(0, token - 6) for token in row if token) for row in tokens.tolist()]

    def digest(self):
        return "counting"

    def save(self, folder):
        write_json(folder / "tokenizers.json", {"kind": "counting"})

    @classmethod
    def load(cls, folder):
        assert read_json(folder / "tokenizers.json") == {"kind": "counting"}
        return cls()
