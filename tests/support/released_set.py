"""A folder of released 4M files with random weights, at any size: transformer, tokenizers of each kind, text tokenizer."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fourfold.modalities import TOKEN_MODALITIES
from fourfold.tokenizers.networks.divae import DiVAE, DiVAEConfig
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE, ViTVQVAEConfig, VQConfig
from fourfold.tokenizers.released.checkpoint import export_released_tokenizer
from tests.fourfold.model.released_files import VALUES, checkpoint, write
from tests.fourfold.tokenizers.released.test_text import made_by_the_library

SIDE, PATCH = 32, 16
TRUNK = TrunkConfig(dim=12, depth=1, num_heads=3)
COMMON = {"image_size": (SIDE, SIDE), "patch_size": PATCH, "encoder": TRUNK, "latent_width": 6}
UNET = UNetConfig(patch_size=8, width=32, multipliers=(1,), blocks_per_level=1, attention_at=())
MLP = VectorMlpConfig(num_blocks=1, width=16)
NOT_IN_4M = {"tok_clip_global", "keypoints"}
# name in the model hub → modality, configuration
TOKENIZERS: dict[str, tuple[str, VQConfig]] = {
    "4M_tokenizers_rgb_16k_224-448": (
        "tok_rgb@224",
        DiVAEConfig(**COMMON, codebook_size=24, decoder=UNET, imagenet_standardized=True),
    ),
    "4M_tokenizers_depth_8k_224-448": (
        "tok_depth@224",
        DiVAEConfig(**COMMON | {"channels": 1}, codebook_size=16, decoder=UNET),
    ),
    "4M_tokenizers_normal_8k_224-448": ("tok_normal@224", DiVAEConfig(**COMMON, codebook_size=16, decoder=UNET)),
    "4M_tokenizers_semseg_4k_224-448": (
        "tok_semseg@224",
        ViTVQVAEConfig(**COMMON | {"channels": 4}, codebook_size=10, decoder=TRUNK, num_classes=134),
    ),
    "4M_tokenizers_CLIP-B16_8k_224-448": (
        "tok_clip@224",
        ViTVQVAEConfig(**COMMON | {"channels": 5}, codebook_size=12, decoder=TRUNK, feature_map=True),
    ),
    "4M_tokenizers_edge_8k_224-512": (
        "tok_canny_edge@224",
        DiVAEConfig(**COMMON | {"channels": 1}, codebook_size=8, decoder=UNET),
    ),
    "4M_tokenizers_DINOv2-B14-global_8k_16_224": (
        "tok_dinov2_global",
        ViTVQVAEConfig(
            channels=6, encoder=MLP, decoder=MLP, codebook="memcodes", codebook_size=9, latent_width=32, num_codebooks=16
        ),
    ),
}


@dataclass(frozen=True)
class Scale:
    """Sizes of a set: of the transformer, its tokenizers and its texts."""

    tokenizers: dict[str, tuple[str, VQConfig]]
    values: dict[str, Any] = field(default_factory=dict)  # of the transformer, beside those of `VALUES`
    texts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("caption", "det", "metadata"), 9))  # name → length
    others: dict[str, tuple] = field(default_factory=dict)  # modalities without a tokenizer in the set
    vocabulary_size: int | None = None  # of texts; None: that of a few words
    name: str = "4M-21_B"


def tiny(side: int = SIDE) -> Scale:
    """Return sizes with which everything takes a second, for images of `side` pixels."""
    sized = {
        name: (modality, entry if modality.endswith("global") else entry.model_copy(update={"image_size": (side, side)}))
        for name, (modality, entry) in TOKENIZERS.items()
    }
    return Scale(sized, {"image_size": side, "patch_size": PATCH})


def released_size() -> Scale:
    """Return the sizes of 4M-21 B: its modalities and vocabularies, tokenizers with ViT-B, and U-Nets of width 256."""
    trunk = TrunkConfig()
    common: dict[str, Any] = {"image_size": (224, 224), "patch_size": 16, "encoder": trunk, "latent_width": 32}
    other = {"4k": 4096, "8k": 8192, "16k": 16384}
    sized: dict[str, tuple[str, VQConfig]] = {}
    for name, (modality, entry) in TOKENIZERS.items():
        codes = next(size for text, size in other.items() if f"_{text}_" in name)
        changes = {"codebook_size": codes} | ({} if modality.endswith("global") else common)
        if modality.endswith("global"):
            mlp = VectorMlpConfig()
            changes |= {"channels": 768, "encoder": mlp, "decoder": mlp, "latent_width": 32 * 16}
        elif isinstance(entry, DiVAEConfig):
            changes |= {"decoder": UNetConfig()}
        else:
            changes |= {"decoder": trunk, "channels": 512 if entry.feature_map else 64}
        sized[name] = (modality, type(entry).model_validate(entry.model_dump() | changes))
    own = {modality.partition("@")[0] for modality, _ in sized.values()} | NOT_IN_4M
    grids = [entry for entry in TOKEN_MODALITIES.values() if entry.kind == "grid" and entry.name not in own]
    others = {
        entry.name if entry.learned_positions else f"{entry.name}@224": (
            "grid", entry.released_vocabulary, entry.released_grid, "learned" if entry.learned_positions else ""
        )
        for entry in grids
        if entry.released_grid and entry.released_vocabulary
    }  # fmt: skip
    others["t5_caption"] = ("vectors", 4096, 77, "")
    sequences = (entry for entry in TOKEN_MODALITIES.values() if entry.kind == "sequence" and entry.name not in own)
    texts = {entry.name: entry.released_tokens for entry in sequences if entry.released_tokens}
    values = {"dim": 768, "encoder_depth": 12, "decoder_depth": 12, "num_heads": 12, "image_size": 224, "patch_size": 16}
    return Scale(sized, values, texts, others, vocabulary_size=30_000)


def make_released_set(folder: Path, scale: Scale | None = None) -> Path:
    """Write the set as model hubs store it; equal bytes at each call. By default it is tiny."""
    scale = scale or tiny()
    num_texts = _write_texts(folder / "text_tokenizer_4m_wordpiece_30k.json", scale.vocabulary_size)
    values = VALUES | {"share_modality_embeddings": False, **scale.values}
    grid = (values["image_size"] // values["patch_size"],) * 2
    modalities: dict[str, tuple] = {"rgb@224": ("pixels", 0, grid, "")}
    torch.manual_seed(0)
    for name, (modality, config) in scale.tokenizers.items():
        model = DiVAE(config) if isinstance(config, DiVAEConfig) else ViTVQVAE(config)
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if "position" not in key and "counts" not in key:
                    tensor.add_(torch.randn(tensor.shape) * (1 if "codes" in key else 0.1))
        export_released_tokenizer(model, folder / name / "model.safetensors")
        is_global = modality.endswith("global")
        modalities[modality] = ("grid", config.codebook_size, (4, 4) if is_global else grid, "learned" if is_global else "")
    modalities |= scale.others | {name: ("sequence", num_texts, length, "") for name, length in scale.texts.items()}
    (folder / scale.name).mkdir(parents=True)
    write(checkpoint(values, modalities), values, modalities, folder / scale.name / "model.safetensors")
    (folder / scale.name / "LICENSE").write_text("The license of the weights.\n")
    return folder


def _write_texts(path: Path, size: int | None) -> int:
    """Write the text tokenizer, with words without meaning up to `size` entries; return their number."""
    count = made_by_the_library(path).get_vocab_size()
    if size is None:
        return count
    stored = json.loads(path.read_text())
    stored["model"]["vocab"] |= {f"word{number}": number for number in range(count, size)}
    path.write_text(json.dumps(stored))
    return size
