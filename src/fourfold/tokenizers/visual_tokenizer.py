"""One trained VQ-VAE with the format of its label: stored values in, token ids out, and back."""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from fourfold.digests import check_digests, write_recorded, write_recorded_json
from fourfold.storage import read_json
from fourfold.tokenizers import REMEDY
from fourfold.tokenizers.formats import ClassFormat, DenseFormat, dense_format
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vector_vqvae import VectorVQVAE
from fourfold.tokenizers.networks.vqvae import VQVAE, VQVAEShape
from fourfold.training.precision import default_device

WEIGHTS_FILE = "weights.safetensors"
SETTINGS_FILE = "settings.json"


def build_vqvae(shape: VQVAEShape, config: VisualTokenizerConfig) -> VQVAE | VectorVQVAE:
    """Return an untrained network for values of a shape."""
    return VectorVQVAE(shape, config) if shape.is_vector else VQVAE(shape, config)


class VisualTokenizer:
    """Turns stored values of one dense label into ids (B, L) and back."""

    def __init__(self, name: str, values_format: DenseFormat, model: VQVAE | VectorVQVAE, config: VisualTokenizerConfig):
        self.name, self.format, self.model, self.config = name, values_format, model, config

    @property
    def vocabulary_size(self) -> int:
        """Number of ids that a token may have."""
        return self.config.codebook_size

    @property
    def own_grid(self) -> tuple[int, int] | None:
        """Rows and columns of its tokens; None for those of the run's settings."""
        return None

    @property
    def num_codes(self) -> int:
        """Number of codes: each token of a global vector has a separate codebook, all tokens of an image share one."""
        rows, columns = self.model.shape.grid
        return self.vocabulary_size * (rows * columns if isinstance(self.model, VectorVQVAE) else 1)

    @property
    def shared_codes_KD(self) -> torch.Tensor | None:
        """The codes (vocabulary, width) that all tokens of an image share, of unit length; None for global vectors."""
        if isinstance(self.model, VectorVQVAE):
            return None
        return torch.nn.functional.normalize(self.model.codebook.codes_KD.float(), dim=-1)

    @property
    def device(self) -> torch.device:
        """Device of the VQ-VAE."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def tokens(self, values: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Return the ids int16 (B, L), row by row, of stored values (B, ...).

        Args:
            values: in the dtype and layout of the shards. Images may be larger or smaller than those of training.
            grid: rows and columns of tokens that they become; by default those of training.

        Raises:
            ValueError: the values do not have the size of this grid.
        """
        inputs_BCHW = self.format.inputs(values).to(self.device)
        shape = self.model.shape
        expected = (shape.input_channels, *shape.input_size(grid))
        if tuple(inputs_BCHW.shape[1:]) != expected:
            verb = "trained for" if grid in (None, shape.grid) else "this grid needs"
            raise ValueError(
                f"{self.name}: channels, height and width are {tuple(inputs_BCHW.shape[1:])}; {verb} {expected}. "
                "Resize the values."
            )
        return self.model.tokens(inputs_BCHW).flatten(1).cpu().numpy().astype(np.int16)

    @torch.inference_mode()
    def decode(self, tokens: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Return values (B, ...) in the dtype and layout of the shards, of ids (B, L) or (B, h, w) on `grid`.

        Raises:
            ValueError: the number of tokens is wrong, or an id is not a code.
        """
        return self.format.values(self.model.reconstruct(self.token_grid(tokens, grid)).cpu())

    def token_grid(self, tokens: np.ndarray, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Return ids (B, L) or (B, h, w) as int64 (B, h, w).

        Raises:
            ValueError: the number of tokens is wrong, or an id is not a code.
        """
        rows, columns = grid or self.model.shape.grid
        if tokens[0].size != rows * columns or tokens.min() < 0 or tokens.max() >= self.vocabulary_size:
            raise ValueError(
                f"{self.name}: got {tokens[0].size} tokens from {tokens.min()} to {tokens.max()}; allowed: "
                f"{rows} × {columns} ids from 0 to {self.vocabulary_size - 1}."
            )
        return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64)).view(-1, rows, columns).to(self.device)

    def save(self, folder: Path) -> None:
        """Write settings, then weights, each atomically: where there are weights, the tokenizer is complete."""
        num_classes = self.format.num_classes if isinstance(self.format, ClassFormat) else 0
        shape = self.model.shape
        settings = {
            "name": self.name,
            "grid": list(shape.grid),
            "patch": shape.patch,
            "num_classes": num_classes,
            "statistics": self.format.statistics,
            "config": self.config.model_dump(mode="json"),
        }
        write_recorded_json(folder, SETTINGS_FILE, settings)
        write_recorded(folder, WEIGHTS_FILE, save({key: value.contiguous() for key, value in self.model.state_dict().items()}))

    @classmethod
    def load(cls, folder: Path) -> "VisualTokenizer":
        """Read a folder that `save` wrote; raises ValueError if a file is missing or changed."""
        check_digests(folder, REMEDY, SETTINGS_FILE, WEIGHTS_FILE)
        stored = read_json(folder / SETTINGS_FILE)
        config = VisualTokenizerConfig(**stored["config"])
        values_format = dense_format(stored["name"], stored["statistics"], stored["num_classes"])
        rows, columns = stored["grid"]
        shape = VQVAEShape(values_format.channels, values_format.channels, stored["patch"], (rows, columns))
        model = build_vqvae(shape, config)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return cls(stored["name"], values_format, model.to(default_device()).eval(), config)
