"""A tiny any-to-any model with real tokenizers and random weights, made in less than a second."""

import torch

from fourfold.generation.any_to_any import AnyToAny
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.formats import dense_format
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vqvae import VQVAEShape
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer, build_vqvae

GRID, PATCH = (2, 2), 8
VQVAE = VisualTokenizerConfig(codebook_size=16, latent_width=4, width=16, fine_width=8)
CLASSES = ("road", "car", "person")
LOG_DEPTH = {"mean": [2.3], "deviation": [1.0], "lowest": [0.0], "highest": [4.0]}  # 1 to 55 m


def tiny_any_to_any(seed: int = 0) -> AnyToAny:
    """Return a model of images with 16 pixels per side that predicts depth, semseg, det and captions, and reads all of them."""
    torch.manual_seed(seed)
    settings = TextTokenizerConfig(object_classes=CLASSES, det_tokens=10, caption_tokens=8, coordinate_bins=4, num_sentinels=8)
    text = TextTokenizer.train(["a car on a road and a person"], settings)
    config = TokenizersConfig(grid=GRID, visual={"depth": VQVAE, "semseg": VQVAE}, text=settings)
    visual = {}
    for name, statistics in (("depth", LOG_DEPTH), ("semseg", {})):
        values_format = dense_format(name, statistics, len(CLASSES))
        shape = VQVAEShape(values_format.channels, values_format.channels, PATCH, GRID)
        network = build_vqvae(shape, VQVAE).eval()
        for tensor in (*network.parameters(), network.codebook.codes_KD):  # so that values and tokens depend on each other
            tensor.data.normal_(std=0.3)
        visual[name] = VisualTokenizer(name, values_format, network, VQVAE)
    grids = [ModalityConfig(name=f"tok_{name}", kind="grid", vocabulary_size=VQVAE.codebook_size, grid=GRID) for name in visual]
    texts = [
        ModalityConfig(name=name, kind="sequence", vocabulary_size=text.vocabulary_size, max_length=length)
        for name, length in (("caption", 9), ("det", 11))
    ]
    modalities = (ModalityConfig(name="rgb", kind="pixels", grid=GRID), *grids, *texts)
    sizes = {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "patch_size": PATCH, "embedding_std": 0.7}
    return AnyToAny(FourM(ModelConfig(modalities=modalities, **sizes), seed=seed), TokenizerSet(config, text, visual))
