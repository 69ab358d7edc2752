"""CONTRIBUTING.md says how to add a modality. Here its lines are run as they stand, and the modality is used end to end."""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fourfold import modalities
from fourfold.data import codecs
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ArchitectureConfig
from fourfold.model.fourm import FourM
from fourfold.pretraining.pretrain import model_config
from fourfold.tokenizers import formats
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.training.run_context import RunContext

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
TINY = VisualTokenizerConfig(
    codebook_size=16, latent_width=4, width=16, fine_width=8, unquantized_steps=2, steps=30, decoder_steps=2, batch_size=8
)


def lines_of_contributing() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_lines_of_contributing_add_a_modality_that_is_stored_tokenized_masked_and_learned():
    code = lines_of_contributing()
    assert len(code.splitlines()) < 20
    tables = {
        "LABELS": modalities.LABELS,
        "TOKEN_MODALITIES": modalities.TOKEN_MODALITIES,
        "DENSE_FORMATS": formats.DENSE_FORMATS,
    }
    words = {"Label": modalities.Label, "TokenModality": modalities.TokenModality, "DenseFormat": formats.DenseFormat}
    before = {name: dict(table) for name, table in tables.items()}
    try:
        exec(code, tables | words | {"np": np, "torch": torch, "F": F})  # our own page, not input
        use_heat()
    finally:
        for name, table in tables.items():
            table.clear()
            table.update(before[name])
    assert "heat" not in modalities.LABELS


def use_heat() -> None:
    y, x = np.mgrid[:32, :32]
    rng = np.random.default_rng(0)
    heat = np.stack([300 + 15 * np.sin(x / a) + 15 * np.cos(y / b) for a, b in rng.uniform(2, 9, (48, 2))]).astype(np.float16)
    # stored
    stored = codecs.decode("heat", codecs.encode("heat", heat[0]))
    np.testing.assert_array_equal(stored, heat[0])
    # tokenized, and back in kelvin
    tokenizer = train_visual_tokenizer(TrainingValues("heat", heat, (4, 4)), TINY, RunContext(seed=0))
    text = TextTokenizer.train(["warm and cold"], TextTokenizerConfig())
    tokenizers = TokenizerSet(TokenizersConfig(grid=(4, 4), visual={"heat": TINY}), text, {"heat": tokenizer})
    tokens = tokenizers.tokens("heat", heat)
    decoded = tokenizers.decode("tok_heat", tokens)
    assert decoded.dtype == np.float16 and decoded.shape == heat.shape
    assert np.abs(decoded.astype(float) - heat).mean() < heat.astype(float).std()  # better than saying the mean everywhere
    # known to the model, masked and learned
    config = model_config(ArchitectureConfig(dim=16, encoder_depth=1, decoder_depth=1, num_heads=2), tokenizers, None)
    assert "tok_heat" in config.names
    component = MixtureComponent(alpha_in={"tok_heat": 1.0}, alpha_target={"tok_heat": 1.0})
    masking = MaskingConfig(components=(component,), input_tokens=6, target_tokens=8)
    masker = Masker(masking, config, SentinelIds(text.eos_id, tuple(text.sentinel_ids[1:])))
    losses = FourM(config)(masker({"tok_heat": tokens}, None, rng))
    losses.total.backward()
    assert list(losses.per_modality) == ["tok_heat"] and bool(losses.total.isfinite())
