import numpy as np
import pytest
import torch

from fourfold.generation import any_to_any
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
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
    """Depth tokens are metres; a caption's ids are the lengths of its words + 6."""

    class text:  # noqa: N801
        eos_id, sentinel_ids = 3, [4, 5, 6]

    def tokens(self, name, values):
        if name == "depth":
            return np.asarray(values).reshape(len(values), -1).astype(np.int16)
        rows = [[len(word) + 6 for word in text.split()] for text in values]
        return np.array([row + [0] * (5 - len(row)) for row in rows], np.int16)

    def decode(self, name, tokens):
        if name == "depth":
            return tokens.reshape(-1, 2, 2).astype(np.float16)
        return [" ".join("x" * max(0, token - 6) for token in row if token) for row in tokens.tolist()]

    def digest(self):
        return "counting"

    def save(self, folder):
        write_json(folder / "tokenizers.json", {"kind": "counting"})

    @classmethod
    def load(cls, folder):
        assert read_json(folder / "tokenizers.json") == {"kind": "counting"}
        return cls()


@pytest.fixture
def model() -> AnyToAny:
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_any_subset_of_labels_gives_any_other_in_the_formats_of_the_codecs(model, images):
    found = model.predict({"rgb": images}, ["depth", "caption"], seed=0)
    assert found["depth"].shape == (5, 2, 2)
    assert found["depth"].dtype == np.float16
    assert len(found["caption"]) == 5
    again = model.predict({"caption": ["a bb", "ccc"], "depth": np.ones((2, 2, 2))}, ["depth"], seed=0)
    assert again["depth"].shape == (2, 2, 2)


def test_results_do_not_depend_on_how_samples_are_batched(model, images):
    config = GenerationConfig(grids=TargetConfig(temperature=1.0, steps=2), sequences=TargetConfig(temperature=1.0))
    whole = model.predict({"rgb": images}, ["depth", "caption"], config=config, seed=3)
    parts = model.predict({"rgb": images}, ["depth", "caption"], config=config, seed=3, batch_size=2)
    np.testing.assert_array_equal(whole["depth"], parts["depth"])
    assert whole["caption"] == parts["caption"]
    assert whole["caption"] != model.predict({"rgb": images}, ["caption"], config=config, seed=4)["caption"]


def test_a_saved_model_answers_the_same_from_another_folder(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(any_to_any, "TokenizerSet", CountingTokenizers)
    model.save(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    loaded = AnyToAny.load(tmp_path / "moved")
    expected, found = (m.predict({"rgb": images}, ["depth", "caption"], seed=0) for m in (model, loaded))
    np.testing.assert_array_equal(expected["depth"], found["depth"])
    assert expected["caption"] == found["caption"]
    np.testing.assert_array_equal(model.features({"rgb": images}), loaded.features({"rgb": images}, batch_size=5))


def test_the_digest_follows_the_weights(model):
    digest = model.digest()
    assert digest == AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers()).digest()
    with torch.no_grad():
        model.model.mask_token_D[0] += 1e-6
    assert digest != model.digest()


def test_a_text_condition_ends_with_the_end_token(model):
    tokens = model.condition_tokens({"caption": ["a bb", "a a a a a"]})["caption"]
    assert tokens.tolist() == [[7, 8, 3, 0, 0, 0], [7, 7, 7, 7, 7, 3]]


def test_requests_that_make_no_sense_say_what_does(model, images):
    with pytest.raises(ValueError, match="Did you mean 'depth'"):
        model.predict({"rgb": images}, ["dpeth"])
    with pytest.raises(ValueError, match="equally many samples"):
        model.predict({"rgb": images, "caption": ["one"]}, ["depth"])
    with pytest.raises(ValueError, match="at least one condition"):
        model.predict({}, ["depth"])
    with pytest.raises(ValueError, match="Did you mean 'greedy'"):
        model.predict({"rgb": images}, ["depth"], preset="gredy")
    with pytest.raises(ValueError, match="has no modality 'tok_clip'"):
        model.predict({"rgb": images}, ["clip"])


def test_features_are_the_mean_over_what_is_visible(model):
    short, long = model.features({"caption": ["a", "a bb ccc"]}), model.features({"caption": ["a"]})
    np.testing.assert_allclose(short[0], long[0], atol=1e-6)
    assert torch.isfinite(torch.tensor(short)).all()
