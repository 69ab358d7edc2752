"""The guide docs/guides/add-a-modality.md is executed: its plug-in is loaded, and the modality is used end to end."""

import numpy as np

from fourfold.data import codecs
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ArchitectureConfig
from fourfold.model.fourm import FourM
from fourfold.plugins import load_plugins
from fourfold.pretraining.pretrain import model_config
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.training.run_context import RunContext
from tests.fourfold.guides import code_blocks, plugin_of_guide, yaml_block

GUIDE = "add-a-modality.md"
TINY = VisualTokenizerConfig(
    codebook_size=16, latent_width=4, width=16, fine_width=8, unquantized_steps=2, steps=30, decoder_steps=2, batch_size=8
)


def test_the_modality_of_the_guide_is_stored_tokenized_masked_and_learned(tmp_path):
    settings = yaml_block(GUIDE)
    assert len(code_blocks(GUIDE, "python")[0].splitlines()) < 35
    with plugin_of_guide(GUIDE, tmp_path, "thermal"):
        load_plugins(settings["plugins"])
        visual = TokenizersConfig(visual=settings["tokenizer_training"]["visual"]).visual
        assert visual["heat"].codebook_size == 512
        (component,) = settings["pretraining"]["masking"]["components"]
        assert MixtureComponent(**component).alpha_target == {"tok_heat": 1.0}
        use_heat()


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
    assert np.abs(decoded.astype(float) - heat).mean() < heat.astype(float).std()  # better than the mean everywhere
    # known to the model, masked and learned
    config = model_config(ArchitectureConfig(dim=16, encoder_depth=1, decoder_depth=1, num_heads=2), tokenizers, None)
    assert "tok_heat" in config.names
    component = MixtureComponent(alpha_in={"tok_heat": 1.0}, alpha_target={"tok_heat": 1.0})
    masking = MaskingConfig(components=(component,), input_tokens=6, target_tokens=8)
    masker = Masker(masking, config, SentinelIds(text.eos_id, tuple(text.sentinel_ids[1:])))
    losses = FourM(config)(masker({"tok_heat": tokens}, None, rng))
    losses.total.backward()
    assert list(losses.per_modality) == ["tok_heat"] and bool(losses.total.isfinite())
