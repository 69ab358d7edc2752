"""Diffusion decoders: the schedule of the papers, seeds that are independent of the batch, and learning."""

import numpy as np
import pytest
import torch

from fourfold.seeds import derive_seed, numpy_generator, torch_generator
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.formats import dense_format
from fourfold.tokenizers.measures import measure_tokenizers
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig, VisualTokenizerConfig
from fourfold.tokenizers.networks.diffusion import NoiseConfig, add_noise, decoding_scheduler, denoise, training_scheduler
from fourfold.tokenizers.networks.divae import DiVAE, DiVAEConfig
from fourfold.tokenizers.networks.unet import UNet, UNetConfig, embed_steps
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vqvae import VQVAE, VQVAEShape
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.diffusion import train_diffusion_decoder
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext

from ..conftest import tiny_config
from ..test_tokenizer_set import column, files_of

TINY = UNetConfig(width=16, multipliers=(1, 2), blocks_per_level=1, attention_at=(2,), num_groups=4)
TRUNK = TrunkConfig(dim=24, depth=1, num_heads=3)


def signal_shares() -> np.ndarray:
    """ᾱ by the formulas: DDPM's linear β, then √ᾱ shifted and stretched (arXiv 2305.08891, algorithm 1), in float64."""
    roots = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


class Oracle(UNet):
    """Stand-in for a U-Net: returns the clean image and records the steps at which it is called."""

    def __init__(self, clean_BCHW: torch.Tensor):
        super().__init__(3, 4, TINY)
        self.clean, self.asked, self.seen = clean_BCHW, [], []

    def forward(self, noisy_BCHW, step_B, codes_BDhw):
        self.asked.append(int(step_B[0]))
        self.seen.append(noisy_BCHW.clone())
        return self.clean


def test_schedule_matches_the_papers_and_ends_without_signal():
    expected = signal_shares()
    for scheduler in (training_scheduler(NoiseConfig()), decoding_scheduler(NoiseConfig(), False)):
        np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), expected, atol=2e-6)
        assert scheduler.alphas_cumprod[-1] < 1e-7
    kept = training_scheduler(NoiseConfig(zero_terminal_snr=False)).alphas_cumprod
    np.testing.assert_allclose(kept.numpy(), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=1e-4)


def test_noise_follows_the_schedule_at_uniform_steps():
    clean = torch.randn(4000, 1, 2, 2)
    noisy, step = add_noise(clean, NoiseConfig(), torch_generator(0, "noise"))
    generator = torch_generator(0, "noise")
    drawn, noise = torch.randint(1000, (4000,), generator=generator), torch.randn(clean.shape, generator=generator)
    share = torch.from_numpy(signal_shares())[drawn].float()[:, None, None, None]
    assert torch.equal(step, drawn)
    torch.testing.assert_close(noisy, share.sqrt() * clean + (1 - share).sqrt() * noise, atol=1e-4, rtol=0)
    assert abs(step.float().mean() - 499.5) < 4 * 288.7 / 4000**0.5 and step.min() < 5 and step.max() > 994


def test_decoding_follows_ddim_from_noise_to_the_prediction():
    clean, seeds = torch.rand(2, 3, 16, 16) * 2 - 1, [5, 6]
    oracle = Oracle(clean)
    found = denoise(oracle, torch.zeros(2, 4, 4, 4), (3, 16, 16), seeds, NoiseConfig(), num_decoding_steps=4)
    assert oracle.asked == [999, 749, 499, 249]
    start = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    torch.testing.assert_close(oracle.seen[0], start)
    share, image = signal_shares(), start.double()
    for now, after, seen in zip([999, 749, 499], [749, 499, 249], oracle.seen[1:], strict=True):
        noise = (image - share[now] ** 0.5 * clean) / (1 - share[now]) ** 0.5  # equation 12 of DDIM, η = 0
        image = share[after] ** 0.5 * clean + (1 - share[after]) ** 0.5 * noise
        torch.testing.assert_close(seen.double(), image, atol=1e-4, rtol=0)
    torch.testing.assert_close(found, clean)


def test_bounded_images_stay_in_their_range():
    oracle = Oracle(torch.full((1, 3, 16, 16), 3.0))
    assert denoise(oracle, torch.zeros(1, 4, 4, 4), (3, 16, 16), [0], NoiseConfig(), 3, clip=True).max() == 1
    assert denoise(oracle, torch.zeros(1, 4, 4, 4), (3, 16, 16), [0], NoiseConfig(), 3).max() == 3


def test_unet_starts_at_zero_and_depends_on_step_and_codes():
    torch.manual_seed(0)
    unet, image, codes = UNet(3, 4, TINY), torch.randn(1, 3, 16, 16), torch.randn(1, 4, 4, 4)
    assert not unet(image, torch.tensor([3]), codes).any()
    for parameter in unet.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    first = unet(image, torch.tensor([3]), codes)
    assert first.shape == image.shape
    assert not torch.allclose(first, unet(image, torch.tensor([700]), codes), atol=1e-3)
    assert not torch.allclose(first, unet(image, torch.tensor([3]), -codes), atol=1e-3)


def test_step_embedding_has_cosines_then_sines():
    found = embed_steps(torch.tensor([0, 17]), 8)
    frequencies = [10000 ** (-i / 4) for i in range(4)]
    np.testing.assert_allclose(found[0], [1] * 4 + [0] * 4)
    np.testing.assert_allclose(
        found[1], [*np.cos(np.multiply(17, frequencies)), *np.sin(np.multiply(17, frequencies))], atol=1e-5
    )


def test_divae_trains_encoder_codes_and_decoder_in_one_pass():
    torch.manual_seed(0)
    config = DiVAEConfig(image_size=(16, 16), patch_size=4, encoder=TRUNK, latent_width=4, codebook_size=5, decoder=TINY)
    model, image = DiVAE(config), torch.rand(2, 3, 16, 16) * 2 - 1
    for parameter in model.decoder.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    model.bottleneck.table.codes_KD.normal_()
    thought, commitment = model(image, torch_generator(0, "noise"))
    ((thought - image).square().mean() + commitment).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    decoded = model.reconstruct(model.tokens(image), seeds=[1, 2], num_decoding_steps=2)
    assert decoded.shape == image.shape


@pytest.fixture(scope="module")
def with_decoder(world, tmp_path_factory) -> tuple[TokenizerSet, TokenizersConfig]:
    """Return an rgb tokenizer with both decoders, trained for a few steps."""
    decoder = DiffusionDecoderConfig(unet=TINY, steps=12, batch_size=8, average_decay=0.5, num_decoding_steps=3, num_measured=8)
    config = tiny_config().model_copy(update={"visual": {"rgb": tiny_config().visual["rgb"]}, "diffusion": {"rgb": decoder}})
    return train_tokenizers(*world, config, RunContext(0, tmp_path_factory.mktemp("with_decoder"))), config


PALETTE = np.array([(230, 40, 40), (40, 200, 60), (50, 70, 220), (240, 230, 240)], np.uint8)


class PaletteTokenizer(VisualTokenizer):
    """Return images of 2 × 2 color fields; a token is the index of a color, and each code a different direction."""

    def __init__(self):
        config = VisualTokenizerConfig(codebook_size=4, latent_width=4, width=16, fine_width=8)
        model = VQVAE(VQVAEShape(3, 3, 4, (2, 2)), config)
        model.codebook.codes_KD.copy_(torch.eye(4))
        super().__init__("rgb", dense_format("rgb", {}, 6), model, config)

    def tokens(self, values: np.ndarray) -> np.ndarray:
        seen = values[:, ::4, ::4].reshape(len(values), 4, 1, 3).astype(int)
        return np.abs(seen - PALETTE.astype(int)).sum(-1).argmin(-1).astype(np.int16)


def test_tiny_decoder_learns_to_reconstruct_from_tokens():
    fields = PALETTE[numpy_generator(0, "fields").integers(4, size=(80, 2, 2))].repeat(4, 1).repeat(4, 2)
    training, unseen, tokenizer = fields[:64], fields[64:], PaletteTokenizer()
    optimizer = OptimizerConfig(kind="adamw", learning_rate=5e-3, betas=(0.9, 0.99))
    unet = UNetConfig(width=32, multipliers=(1,), blocks_per_level=1, attention_at=(), num_groups=4)
    config = DiffusionDecoderConfig(
        unet=unet, steps=250, batch_size=16, average_decay=0.9, optimizer=optimizer, num_decoding_steps=4
    )
    decoder = train_diffusion_decoder(tokenizer, training, config, RunContext(0))
    tokens, seeds = tokenizer.tokens(unseen), list(range(len(unseen)))

    def error(images: np.ndarray) -> float:
        return float(((images.astype(np.float64) - unseen) ** 2).mean())

    trivial = error(training.astype(np.float64).mean(0))
    assert error(decoder.decode(tokens, seeds)) < 0.5 * trivial
    assert error(decoder.decode(np.roll(tokens, 1, axis=0), seeds)) > trivial  # it is the tokens that it paints


def test_decoding_depends_on_the_seed_but_not_on_the_batch(world, with_decoder):
    tokenizers, _ = with_decoder
    tokens = tokenizers.tokens("rgb", column(world, "rgb")[:4])
    decoder, seeds = tokenizers.diffusion["rgb"], [derive_seed(3, "diffusion", "rgb", index) for index in range(4)]
    together = tokenizers.decode("rgb", tokens, "diffusion", seed=3)
    alone = np.concatenate([decoder.decode(tokens[i : i + 1], seeds[i : i + 1]) for i in range(4)])
    assert np.abs(together.astype(int) - alone.astype(int)).max() <= 1
    np.testing.assert_array_equal(together, tokenizers.decode("rgb", tokens, "diffusion", seed=3))
    assert (together != tokenizers.decode("rgb", tokens, "diffusion", seed=4)).any()
    with pytest.raises(ValueError, match="Got 1 seeds for 4 samples"):
        decoder.decode(tokens, [0])


def test_both_decoders_are_measured_on_the_same_tokens(world, with_decoder):
    tokenizers, _ = with_decoder
    figures = measure_tokenizers(tokenizers, *world)
    few = column(world, "rgb")[:8]
    for decoder in ("vq", "diffusion"):
        error = (tokenizers.decode("rgb", tokenizers.tokens("rgb", few), decoder).astype(float) - few) ** 2
        psnr = np.mean(10 * np.log10(255**2 / error.mean((1, 2, 3))))
        assert figures[f"rgb/{decoder}/psnr"] == pytest.approx(psnr, abs=1e-3)


def test_killed_decoder_training_resumes_to_the_same_bytes(world, with_decoder, tmp_path):
    tokenizers, config = with_decoder
    tokenizers.save(tmp_path / "saved")
    loaded = TokenizerSet.load(tmp_path / "saved")
    tokens = tokenizers.tokens("rgb", column(world, "rgb")[:2])
    np.testing.assert_array_equal(loaded.decode("rgb", tokens, "diffusion"), tokenizers.decode("rgb", tokens, "diffusion"))
    assert loaded.digest() == tokenizers.digest()
    short = config.diffusion["rgb"].model_copy(update={"steps": 4, "checkpoint_every": 2})
    two = {name: tiny_config().visual[name] for name in ("rgb", "depth")}
    quick = config.model_copy(update={"visual": two, "diffusion": dict.fromkeys(two, short)})
    for name in ("unbroken", "killed"):
        train_tokenizers(*world, quick, RunContext(0, tmp_path / name))
    for lost in ("tokenizers.json", "depth/diffusion/weights.safetensors"):
        (tmp_path / "killed" / lost).unlink()
    with pytest.raises(ValueError, match=r"no complete tokenizers"):
        TokenizerSet.load(tmp_path / "killed")
    train_tokenizers(*world, quick, RunContext(0, tmp_path / "killed"))
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "unbroken")


def test_without_diffusion_decoders_no_file_mentions_them(tokenizers, tmp_path):
    tokenizers.save(tmp_path)
    assert not any("diffusion" in name for name in files_of(tmp_path))
    assert b"diffusion" not in (tmp_path / "tokenizers.json").read_bytes()
    with pytest.raises(ValueError, match=r"'rgb' has no diffusion decoder. Labels with one: none"):
        tokenizers.decode("rgb", np.zeros((1, 16), int), "diffusion")


def test_impossible_settings_raise():
    with pytest.raises(ValueError, match="diffusion names clip, semseg"):
        TokenizersConfig(diffusion=dict.fromkeys(("clip", "semseg", "rgb"), DiffusionDecoderConfig()))
    with pytest.raises(ValueError, match=r"up to noise\.num_steps, 1000"):
        DiffusionDecoderConfig(num_decoding_steps=1001)
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet(3, 4, TINY)(torch.zeros(1, 3, 20, 16), torch.tensor([0]), torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="must be a multiple of num_groups"):
        UNetConfig(width=20)
