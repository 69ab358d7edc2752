import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fourfold.generation import any_to_any
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.model.fourm import FourM

sys.path.insert(0, str(Path(__file__).parent))
from counting import CONFIG, CountingTokenizers


@pytest.fixture
def model() -> AnyToAny:
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_any_labels_predict_any_others_in_stored_formats(model, images):
    found = model.predict({"rgb": images}, ["depth", "caption"], seed=0)
    assert found["depth"].shape == (5, 2, 2)
    assert found["depth"].dtype == np.float16
    assert len(found["caption"]) == 5
    again = model.predict({"caption": ["a bb", "ccc"], "depth": np.ones((2, 2, 2))}, ["depth"], seed=0)
    assert again["depth"].shape == (2, 2, 2)


def test_results_do_not_depend_on_the_batch_size(model, images):
    config = GenerationConfig(grids=TargetConfig(temperature=1.0, steps=2), sequences=TargetConfig(temperature=1.0))
    whole = model.predict({"rgb": images}, ["depth", "caption"], preset=config, seed=3)
    parts = model.predict({"rgb": images}, ["depth", "caption"], preset=config, seed=3, batch_size=2)
    np.testing.assert_array_equal(whole["depth"], parts["depth"])
    assert whole["caption"] == parts["caption"]
    assert whole["caption"] != model.predict({"rgb": images}, ["caption"], preset=config, seed=4)["caption"]


def test_moved_model_gives_the_same_results(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(any_to_any, "TokenizerSet", CountingTokenizers)
    model.save(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    loaded = AnyToAny.load(tmp_path / "moved")
    expected, found = (m.predict({"rgb": images}, ["depth", "caption"], seed=0) for m in (model, loaded))
    np.testing.assert_array_equal(expected["depth"], found["depth"])
    assert expected["caption"] == found["caption"]
    np.testing.assert_array_equal(model.features({"rgb": images}), loaded.features({"rgb": images}, batch_size=5))


def test_digest_depends_on_the_weights(model):
    digest = model.digest()
    assert digest == AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers()).digest()
    with torch.no_grad():
        model.model.mask_token_D[0] += 1e-6
    assert digest != model.digest()


def test_text_condition_ends_with_the_end_token(model):
    tokens = model.condition_tokens({"caption": ["a bb", "a a a a a"]})["caption"]
    assert tokens.tolist() == [[7, 8, 3, 0, 0, 0], [7, 7, 7, 7, 7, 3]]


def test_impossible_requests_raise_helpful_errors(model, images):
    with pytest.raises(ValueError, match="Did you mean 'depth'"):
        model.predict({"rgb": images}, ["dpeth"])
    with pytest.raises(ValueError, match="same number of samples"):
        model.predict({"rgb": images, "caption": ["one"]}, ["depth"])
    with pytest.raises(ValueError, match="at least one condition"):
        model.predict({}, ["depth"])
    with pytest.raises(ValueError, match="Did you mean 'greedy'"):
        model.predict({"rgb": images}, ["depth"], preset="gredy")
    with pytest.raises(ValueError, match="Unknown modality of this model 'tok_clip'"):
        model.predict({"rgb": images}, ["clip"])


def test_features_are_the_mean_over_visible_tokens(model):
    short, long = model.features({"caption": ["a", "a bb ccc"]}), model.features({"caption": ["a"]})
    np.testing.assert_allclose(short[0], long[0], atol=1e-6)
    assert torch.isfinite(torch.tensor(short)).all()


def test_samples_may_have_different_conditions(model, images):
    captions, depths = ["a bb", None, "ccc a", None, None], [None, np.ones((2, 2)), np.full((2, 2), 3.0), None, None]
    rgb = [None, *images[1:]]
    mixed = {"rgb": rgb, "caption": captions, "depth": depths}
    config = GenerationConfig(grids=TargetConfig(temperature=1.0, steps=2), sequences=TargetConfig(temperature=1.0))
    # depth is given to some, so it is not asked for
    found = model.predict(mixed, ["caption"], preset=config, seeds=[3, 4, 5, 6, 7])["caption"]
    for row in (1, 3, 4):
        own = {name: [values[row]] for name, values in mixed.items() if values[row] is not None}
        own = {name: np.stack(values) if name != "caption" else values for name, values in own.items()}
        assert model.predict(own, ["caption"], preset=config, seeds=[3 + row])["caption"] == [found[row]]
    assert (found[0], found[2]) == ("x xx", "xxx x")  # a caption that is given stays


def test_given_ids_are_kept_and_missing_ones_filled(model):
    ids = np.array([[3, -1, 5, -1], [1, 2, 3, 4]])
    found = model.predict({"tok_depth": ids}, ["depth"])["depth"].reshape(2, 4)
    assert (found[0, 0], found[0, 2], found[1].tolist()) == (3, 5, [1, 2, 3, 4])


def test_gap_in_a_caption_becomes_a_sentinel_and_is_filled(model, images):
    assert model.condition_tokens({"caption": ["a ___ bb ___ ___"]})["caption"].tolist() == [[7, 5, 8, 6, 3]]
    with pytest.raises(ValueError, match="3 gaps; allowed: up to 2"):
        model.condition_tokens({"caption": ["___ a ___ a ___"]})
    whole = model.predict({"rgb": images[:1], "caption": ["a ___ bb"]}, ["caption"])["caption"][0].split()
    assert whole[0] == "x" and whole[-1] == "xx"


def test_plain_labels_work_for_models_with_resolutions():
    names = {"rgb": "rgb@224", "tok_depth": "tok_depth@224"}
    renamed = [m.model_copy(update={"name": names.get(m.name, m.name)}) for m in CONFIG.modalities]
    large = renamed[1].model_copy(update={"name": "tok_depth@448", "grid": (4, 4)})
    config = CONFIG.model_copy(update={"modalities": (*renamed, large)})
    model = AnyToAny(FourM(config, seed=2), CountingTokenizers())
    assert (model.token_name("rgb"), model.target_name("depth")) == ("rgb@224", "tok_depth@224")
    found = model.predict({"depth": np.ones((1, 2, 2))}, ["depth@448"])
    assert found["depth@448"].shape == (4, 2, 2)  # sixteen tokens, as this tokenizer reads them
    with pytest.raises(ValueError, match="Unknown modality of this model 'tok_depth@512'"):
        model.predict({"depth": np.ones((1, 2, 2))}, ["depth@512"])


def test_model_without_pixels_reads_images_as_tokens(images):
    tokens = CONFIG.modalities[1].model_copy(update={"name": "tok_rgb"})
    model = AnyToAny(FourM(CONFIG.model_copy(update={"modalities": (tokens, *CONFIG.modalities[1:])}), 2), CountingTokenizers())
    assert model.token_name("rgb") == "tok_rgb"
    np.testing.assert_array_equal(
        model.condition_tokens({"rgb": images})["tok_rgb"], images[:, ::4, ::4, 0].reshape(5, 4) // 16
    )
