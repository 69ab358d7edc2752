"""Two resolutions from shards to generated images: tokens of both, a mixture of both, and super-resolution."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fourfold.data.crops import CropConfig, resized
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.generation import generate
from fourfold.generation.any_to_any import AnyToAny
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.model.batch import concatenate
from fourfold.model.config import ArchitectureConfig
from fourfold.model.files import load_model
from fourfold.model.fourm import FourM
from fourfold.pretraining.config import DatasetConfig, PretrainConfig, PretrainLoopConfig
from fourfold.pretraining.loader import BatchOrder, Reader
from fourfold.pretraining.mixture import mixture_loader
from fourfold.pretraining.pretrain import BEST, model_config, pretrain, sentinel_ids
from fourfold.scenes.world import CLASS_TABLE
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.measures import measure_tokenizers
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext

COLORS = np.array([(225, 30, 30), (30, 200, 50), (40, 60, 230), (235, 225, 40)])
NAMES = ("red", "green", "blue", "yellow")
SIDE, COARSE, PATCH = 32, 16, 4  # pixels: of the images, of their smaller version, of a token
NUM_SAMPLES, PER_SHARD = 60, 20

EVERYTHING = {"tok_rgb": 0.5, "tok_rgb@16": 0.5, "caption": 0.5}


def masking(pixels: str, **changes) -> MaskingConfig:
    component = MixtureComponent(alpha_in={pixels: 1.0} | EVERYTHING, alpha_target=EVERYTHING)
    return MaskingConfig(**{"components": (component,), "input_tokens": 40, "target_tokens": 30} | changes)


SUPER = MaskingConfig(  # what is seen is coarse, what is asked for fine
    components=(
        MixtureComponent(alpha_in={"rgb@16": 1.0, "tok_rgb@16": 1.0, "tok_rgb": 1.0}, alpha_target={"tok_rgb": 1.0}),
        MixtureComponent(alpha_in={"tok_rgb@16": 1000.0}, alpha_target={"tok_rgb": 1.0}),
    ),
    input_tokens=24,
    min_input_tokens=4,
    target_tokens=64,
)
MIXTURE = {
    "fine": DatasetConfig(weight=0.25, masking=masking("rgb")),
    "coarse": DatasetConfig(weight=0.25, masking=masking("rgb@16"), modalities=("rgb@16", "tok_rgb@16", "caption")),
    "super": DatasetConfig(weight=0.5, masking=SUPER),
}
VQVAE = VisualTokenizerConfig(
    codebook_size=12, latent_width=4, width=16, fine_width=8, unquantized_steps=20, steps=60, decoder_steps=10, batch_size=20
)


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images of one color, a little darker from left to right, and the color's number."""
    rng = numpy_generator(0, "resolutions", split)
    kinds = rng.integers(4, size=NUM_SAMPLES)
    shade = np.linspace(1, 0.8, SIDE)[None, None, :, None] * rng.uniform(0.9, 1, (NUM_SAMPLES, 1, 1, 1))
    return np.rint(COLORS[kinds][:, None, None] * shade * np.ones((1, SIDE, 1, 1))).astype(np.uint8), kinds


def write_world(root: Path) -> tuple[ShardSet, ShardSet]:
    for split in ("train", "val"):
        images, kinds = pictures(split)
        keys = [f"{split}-{index:03d}" for index in range(NUM_SAMPLES)]
        for shard, first in enumerate(range(0, NUM_SAMPLES, PER_SHARD)):
            part = slice(first, first + PER_SHARD)
            name, captions = f"shard-{shard:05d}.tar", [f"a {NAMES[kind]} field" for kind in kinds[part]]
            columns = {"rgb": zip(keys[part], images[part], strict=True), "caption": zip(keys[part], captions, strict=True)}
            write_columns(root / "shards", split, name, columns)
            labels = {"semseg": [np.zeros((SIDE, SIDE), np.uint8)] * PER_SHARD, "det": [{"instances": []}] * PER_SHARD}
            columns = {label: zip(keys[part], values, strict=True) for label, values in labels.items()}
            write_columns(root / "labels", split, name, columns)
        finish_split(root / "shards", split, ["rgb", "caption"])
        finish_split(root / "labels", split, ["semseg", "det"], class_tables={"semseg": CLASS_TABLE})
    return ShardSet(root / "shards"), ShardSet(root / "labels")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[ShardSet, ShardSet]:
    return write_world(tmp_path_factory.mktemp("resolutions"))


@pytest.fixture(scope="module")
def tokenizers(world, tmp_path_factory) -> TokenizerSet:
    """A tokenizer that only ever saw images of 16 pixels, used for 32 as well."""
    config = TokenizersConfig(
        grid=(SIDE // PATCH, SIDE // PATCH),
        trained_side=COARSE,
        resolutions={"rgb": (COARSE,)},
        visual={"rgb": VQVAE},
        text=TextTokenizerConfig(caption_tokens=8, det_tokens=5, num_sentinels=12),
    )
    return train_tokenizers(*world, config, RunContext(0, tmp_path_factory.mktemp("tokenizers")))


@pytest.fixture(scope="module")
def tokens(world, tokenizers, tmp_path_factory) -> ShardSet:
    return pretokenize(
        *world, tokenizers, CropConfig(), RunContext(0, tmp_path_factory.mktemp("tokens")), splits=["train", "val"]
    )


ARCHITECTURE = ArchitectureConfig(dim=32, encoder_depth=1, decoder_depth=1, num_heads=2, patch_size=PATCH, embedding_std=0.5)


def color_of(images: np.ndarray) -> np.ndarray:
    distances = np.abs(images.astype(float).mean((1, 2))[:, None] - 0.85 * COLORS).sum(-1)
    return distances.argmin(1)


def test_a_tokenizer_works_on_twice_the_grid_of_its_training(world, tokenizers):
    fine, kinds = pictures("val")
    coarse = resized("rgb", fine, COARSE)
    np.testing.assert_allclose(coarse, fine.reshape(-1, COARSE, 2, COARSE, 2, 3).mean((2, 4)), atol=8)
    assert tokenizers.visual["rgb"].model.shape.grid == (4, 4)
    assert tokenizers.grids() == {"tok_rgb": (8, 8), "tok_rgb@16": (4, 4)}
    for name, images, places in (("rgb", fine, 64), ("rgb@16", coarse, 16)):
        ids = tokenizers.tokens(name, images)
        assert ids.shape == (NUM_SAMPLES, places)
        decoded = tokenizers.decode(f"tok_{name}", ids)
        assert decoded.shape == images.shape
        assert (color_of(decoded) == kinds).all()
    with pytest.raises(ValueError, match="height and width are"):
        tokenizers.tokens("rgb@16", fine)
    with pytest.raises(ValueError, match="Unknown tokenizer 'rgb@48'"):
        tokenizers.tokens("rgb@48", fine)


def test_positions_are_resized_only_for_other_grids(tokenizers):
    model = tokenizers.visual["rgb"].model
    position = next(layer for layer in model.decoder if hasattr(layer, "embedding_1Chw"))
    own, larger = torch.zeros(1, 16, 4, 4), torch.zeros(1, 16, 8, 8)
    assert torch.equal(position(own), position.embedding_1Chw)
    wanted = torch.nn.functional.interpolate(position.embedding_1Chw, (8, 8), mode="bicubic")
    torch.testing.assert_close(position(larger), wanted)


def test_each_resolution_is_measured(world, tokenizers):
    figures = measure_tokenizers(tokenizers, *world)
    error = (tokenizers.decode("tok_rgb@16", tokenizers.tokens("rgb@16", resized("rgb", pictures("val")[0], COARSE)))).astype(
        float
    )
    error = ((error - resized("rgb", pictures("val")[0], COARSE)) ** 2).mean((1, 2, 3))
    assert figures["rgb@16/psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), abs=1e-3)
    assert figures["rgb/psnr"] > 15


def test_shards_hold_tokens_of_both_resolutions(world, tokens, tokenizers):
    assert tokens.modalities("val") == sorted(["caption", "crop_settings", "det", "tok_rgb", "tok_rgb@16"])
    stored = tokens.load_column("val", "tok_rgb@16")[:, 0]
    np.testing.assert_array_equal(stored, tokenizers.tokens("rgb@16", resized("rgb", pictures("val")[0], COARSE)))


def test_images_of_both_sizes_in_one_batch_do_not_influence_each_other(world, tokens, tokenizers):
    model = FourM(model_config(ARCHITECTURE, tokenizers, world[0]), seed=3).eval()
    masker = Masker(masking("rgb"), model.config, sentinel_ids(tokenizers))
    loader = mixture_loader(tokens, world[0], MIXTURE, masker, BatchOrder(12, seed=0, shards_at_once=3), Reader(cache_bytes=0))
    batch, _ = next(iter(loader))
    assert batch.pixels_BHWC.shape == (12, SIDE, SIDE, 3)
    seen = {name: (batch.input_modality_BN == model.config.index(name)).any(1) for name in ("rgb", "rgb@16")}
    assert seen["rgb"].any() and seen["rgb@16"].any() and not (seen["rgb"] & seen["rgb@16"]).any()
    together = model.encode(batch).features_BND
    for row in range(12):
        alone = batch[row : row + 1]
        if seen["rgb@16"][row]:
            alone = alone._map(lambda tensor: tensor[:, :COARSE, :COARSE] if tensor.ndim == 4 else tensor)
            assert not batch.pixels_BHWC[row, COARSE:].any()
        torch.testing.assert_close(model.encode(alone).features_BND[0], together[row], atol=1e-5, rtol=1e-4)
    assert not torch.equal(together, model.encode(batch[list(range(11, -1, -1))]).features_BND)


def test_batches_of_different_image_sizes_keep_their_pixels():
    from fourfold.model.batch import MaskedBatch

    def batch(side: int, value: int) -> MaskedBatch:
        empty = torch.zeros(2, 1, dtype=torch.int64)
        pixels = None if side == 0 else torch.full((2, side, side, 3), value, dtype=torch.uint8)
        return MaskedBatch(*[empty] * 7, pixels)

    whole = concatenate([batch(4, 7), batch(0, 0), batch(8, 9)])
    assert whole.pixels_BHWC.shape == (6, 8, 8, 3) and whole.pixels_BHWC.dtype == torch.uint8
    assert (whole.pixels_BHWC[:2, :4, :4] == 7).all() and whole.pixels_BHWC[:2].sum() == 7 * 2 * 16 * 3
    assert not whole.pixels_BHWC[2:4].any() and (whole.pixels_BHWC[4:] == 9).all()


def test_two_images_of_one_sample_are_rejected(world, tokenizers):
    config = model_config(ARCHITECTURE, tokenizers, world[0])
    both = MaskingConfig(components=(MixtureComponent(alpha_in={"rgb": 1, "rgb@16": 1}, alpha_target={"tok_rgb": 1}),))
    with pytest.raises(ValueError, match=r"`alpha_in` names rgb, rgb@16. Make a mixture"):
        _ = Masker(both, config, sentinel_ids(tokenizers)).pixels
    with pytest.raises(ValueError, match="Images of 24 × 24 pixels do not fit"):
        Masker(masking("rgb"), config, sentinel_ids(tokenizers)).pixels_of((24, 24))
    with pytest.raises(ValueError, match="'caption' is not an image that has a VQ-VAE"):
        TokenizersConfig(resolutions={"caption": (16,)})


def test_super_resolution_generates_a_large_image_from_small_tokens(world, tokens, tokenizers, tmp_path):
    config = PretrainConfig(
        model=ARCHITECTURE,
        masking=SUPER,
        datasets=MIXTURE,
        optimizer=OptimizerConfig(kind="muon", learning_rate=3e-3),
        batch_size=16,
        total_tokens=150 * 16 * 88,
        warmup_tokens=10 * 16 * 88,
        validation_samples=48,
        precision="fp32",
        loop=PretrainLoopConfig(validate_every=50),
    )
    folder = pretrain(tokens, world[0], tokenizers, config, RunContext(0, tmp_path))
    AnyToAny(load_model(folder / BEST), tokenizers).save(tmp_path / "any_to_any")
    model = AnyToAny.load(tmp_path / "any_to_any")
    fine, kinds = pictures("val")
    ids = tokenizers.tokens("rgb@16", resized("rgb", fine, COARSE))
    painted = model.predict({"tok_rgb@16": ids}, ["rgb"], preset="super_resolution")["rgb"]
    assert painted.shape == (NUM_SAMPLES, SIDE, SIDE, 3) and painted.dtype == np.uint8
    assert (color_of(painted) == kinds).mean() > 0.9  # by chance a quarter
    shuffled = model.predict({"tok_rgb@16": np.roll(ids, 1, axis=0)}, ["rgb"], preset="super_resolution")["rgb"]
    assert (color_of(shuffled) == kinds).mean() < 0.5
    # from small pixels as well, and one call of any size of image
    small = model.predict({"rgb@16": resized("rgb", fine, COARSE)}, ["rgb"], preset="super_resolution")["rgb"]
    assert (color_of(small) == kinds).mean() > 0.9
    found = generate(model, {"rgb@16": fine[0]}, ["rgb", "rgb@16"])
    assert found["rgb"].shape == (SIDE, SIDE, 3) and found["rgb@16"].shape == (COARSE, COARSE, 3)
    both = model.predict({"rgb": fine, "rgb@16": resized("rgb", fine, COARSE)}, ["rgb@16"])["rgb@16"]
    assert (color_of(both) == kinds).mean() > 0.9
