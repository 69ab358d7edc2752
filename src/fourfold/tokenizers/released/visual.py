"""A released tokenizer with the interface of those that a run trains: stored values in, token ids out, and back."""

# B batch, C channels, H W pixels, h w token grid, N tokens of a vector

from pathlib import Path

import torch
from torch import Tensor, nn

from fourfold.digests import check_digests, write_recorded, write_recorded_json
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.seeds import derive_seed
from fourfold.storage import read_json
from fourfold.tokenizers import REMEDY
from fourfold.tokenizers.formats import Statistics
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.divae import DiVAE
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE
from fourfold.tokenizers.networks.vqvae import VQVAEShape
from fourfold.tokenizers.released.checkpoint import load_released_tokenizer, released_tokenizer_bytes
from fourfold.tokenizers.released.formats import released_format
from fourfold.tokenizers.visual_tokenizer import SETTINGS_FILE, WEIGHTS_FILE, VisualTokenizer
from fourfold.training.precision import default_device

NUM_DECODING_STEPS = 25  # DDIM steps of a diffusion decoder, as in 4M (arXiv 2312.06647 §A.3)
RELEASED = "released"  # key of the settings of such a tokenizer


class ReleasedNetwork(nn.Module):
    """A released VQ-VAE or diffusion tokenizer with the interface of `VQVAE`.

    A diffusion decoder starts from the same noise for every sample, so that values depend on tokens alone.
    """

    def __init__(self, network: ViTVQVAE | DiVAE, grid: tuple[int, int]):
        super().__init__()
        self.network, config = network, network.config
        patch = 0 if isinstance(config.encoder, VectorMlpConfig) else 1 if config.feature_map else config.patch_size
        channels = 1 if config.num_classes else config.channels
        self.shape = VQVAEShape(channels, config.num_classes or config.channels, patch, grid)

    @torch.inference_mode()
    def tokens(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the token ids (B, h, w) int64."""
        if self.network.config.num_classes:
            return self.network.tokens(inputs_BCHW[:, 0].long())
        if self.network.config.imagenet_standardized:
            mean_C11, deviation_C11 = (inputs_BCHW.new_tensor(row)[:, None, None] for row in (IMAGENET_MEAN, IMAGENET_STD))
            inputs_BCHW = ((inputs_BCHW + 1) / 2 - mean_C11) / deviation_C11
        tokens = self.network.tokens(inputs_BCHW)
        return tokens.reshape(len(tokens), *self.shape.grid) if self.shape.is_vector else tokens

    @torch.inference_mode()
    def reconstruct(self, tokens_Bhw: Tensor) -> Tensor:
        """Return the reconstruction (B, C', H, W) of token ids (B, h, w)."""
        if isinstance(self.network, DiVAE):
            seed = derive_seed(0, "released tokenizer", "noise")
            return self.network.reconstruct(tokens_Bhw, [seed] * len(tokens_Bhw), NUM_DECODING_STEPS)
        if self.shape.is_vector:
            return self.network.reconstruct_vectors(tokens_Bhw.flatten(1))[:, :, None, None]
        return self.network.reconstruct(tokens_Bhw)


class ReleasedVisualTokenizer(VisualTokenizer):
    """Turns stored values of one dense label into ids (B, L) and back, with a released network.

    Args:
        name: the label.
        network: from `load_released_tokenizer`.
        grid: rows and columns of tokens, which the transformer decides.
        statistics: mean and deviation of decoded depth; by default it has no unit.

    Raises:
        ValueError: the network does not fit the label, or has several tokens for each cell of an image.
    """

    model: ReleasedNetwork  # type: ignore[assignment]

    def __init__(self, name: str, network: ViTVQVAE | DiVAE, grid: tuple[int, int], statistics: Statistics | None = None):
        config = network.config
        is_vector = isinstance(config.encoder, VectorMlpConfig)
        if config.num_codebooks != (grid[0] * grid[1] if is_vector else 1):
            raise ValueError(
                f"the tokenizer of {name!r} has {config.num_codebooks} codebooks; the model needs "
                f"{grid[0] * grid[1] if is_vector else 1}. Give the tokenizer of this model."
            )
        values_format = released_format(name, config.channels, config.num_classes)
        if statistics:
            values_format.statistics = statistics
        settings = VisualTokenizerConfig(
            codebook_size=config.codebook_size,
            latent_width=config.latent_width // config.num_codebooks,
            vector=config.encoder if isinstance(config.encoder, VectorMlpConfig) else None,
        )
        model = ReleasedNetwork(network, grid).to(default_device()).eval()
        super().__init__(name, values_format, model, settings)  # type: ignore[arg-type]

    @property
    def own_grid(self) -> tuple[int, int]:
        """Rows and columns of its tokens, which the transformer decides."""
        return self.model.shape.grid

    @property
    def num_codes(self) -> int:
        """Number of codes: each token of a vector has a separate codebook, all tokens of an image share one."""
        return self.vocabulary_size * self.model.network.config.num_codebooks

    @property
    def shared_codes_KD(self) -> Tensor | None:
        """The codes (vocabulary, width) that all tokens of an image share, of unit length; None for global vectors."""
        if self.model.shape.is_vector or self.model.network.config.codebook == "memcodes":
            return None
        codes_KD = self.model.network.state_dict()["bottleneck.table.codes_KD"]
        return torch.nn.functional.normalize(codes_KD.float(), dim=-1)

    def save(self, folder: Path) -> None:
        """Write settings, then the weights in the released layout, each atomically."""
        settings = {"name": self.name, "grid": list(self.own_grid), "statistics": self.format.statistics, RELEASED: True}
        write_recorded_json(folder, SETTINGS_FILE, settings)
        write_recorded(folder, WEIGHTS_FILE, released_tokenizer_bytes(self.model.network))

    @classmethod
    def load(cls, folder: Path) -> "ReleasedVisualTokenizer":
        """Read a folder that `save` wrote; raises ValueError if a file is missing or changed."""
        check_digests(folder, REMEDY, SETTINGS_FILE, WEIGHTS_FILE)
        stored = read_json(folder / SETTINGS_FILE)
        rows, columns = stored["grid"]
        return cls(stored["name"], load_released_tokenizer(folder / WEIGHTS_FILE), (rows, columns), stored["statistics"])


def load_visual_tokenizer(folder: Path) -> VisualTokenizer:
    """Read the folder of a tokenizer of a run, or of a released one."""
    path = folder / SETTINGS_FILE
    is_released = path.is_file() and read_json(path).get(RELEASED, False)
    return (ReleasedVisualTokenizer if is_released else VisualTokenizer).load(folder)
