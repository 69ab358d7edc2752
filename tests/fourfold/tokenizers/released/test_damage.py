"""Every released file of a tokenizer, damaged in every way: one ValueError with the file and the key, or a warning."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fourfold.tokenizers.networks.divae import DiVAE, DiVAEConfig
from fourfold.tokenizers.networks.unet import UNetConfig
from fourfold.tokenizers.networks.vector_mlp import VectorMlpConfig
from fourfold.tokenizers.networks.vit import TrunkConfig
from fourfold.tokenizers.networks.vit_vqvae import ViTVQVAE, ViTVQVAEConfig
from fourfold.tokenizers.released.checkpoint import export_released_tokenizer, load_released_tokenizer
from fourfold.tokenizers.released.names import INITIALIZED
from fourfold.tokenizers.released.text import load_released_text
from tests.support.damage import faults, nonfinite_faults, unexpected_errors

from .test_text import made_by_the_library

TRUNK = TrunkConfig(dim=12, depth=2, num_heads=3)
PLAIN = TrunkConfig(dim=12, depth=1, num_heads=3, post_mlp=False)
SMALL = {"image_size": (8, 8), "patch_size": 4, "encoder": PLAIN, "latent_width": 6, "codebook_size": 5}
MLP = VectorMlpConfig(num_blocks=1, width=8, expansion=2)
UNET = UNetConfig(width=32, multipliers=(1, 1), blocks_per_level=1, attention_at=(2,))
KINDS = {
    "image": ViTVQVAEConfig(**SMALL | {"encoder": TRUNK}, decoder=PLAIN, output_blocks=True),
    "classes": ViTVQVAEConfig(**SMALL | {"channels": 4}, decoder=PLAIN, num_classes=3),
    "features": ViTVQVAEConfig(
        **SMALL | {"channels": 4}, decoder=PLAIN, feature_map=True, num_codebooks=2, codebook="euclidean"
    ),
    "vectors": ViTVQVAEConfig(
        channels=5, encoder=MLP, decoder=MLP, codebook="memcodes", codebook_size=4, latent_width=8, num_codebooks=2
    ),
    "diffusion": DiVAEConfig(**SMALL, decoder=UNET),
}


def made(config, path):
    torch.manual_seed(0)
    model = DiVAE(config) if isinstance(config, DiVAEConfig) else ViTVQVAE(config)
    export_released_tokenizer(model.eval(), path)
    return model


@pytest.fixture(params=KINDS.values(), ids=KINDS, scope="module")
def released(request, tmp_path_factory):
    """Tensors and metadata of a file, and a path for its damaged forms."""
    folder = tmp_path_factory.mktemp("tokenizer")
    made(request.param, folder / "whole.safetensors")
    with safe_open(folder / "whole.safetensors", "pt") as file:
        return load_file(folder / "whole.safetensors"), file.metadata(), folder / "damaged.safetensors"


def test_every_damaged_tensor_is_one_error_with_file_and_key(released):
    tensors, metadata, path = released
    assert faults(tensors, metadata, path, load_released_tokenizer) == []


def test_every_nonfinite_tensor_is_a_warning(released, caplog):
    tensors, metadata, path = released
    assert nonfinite_faults(tensors, metadata, path, load_released_tokenizer, caplog) == []


def test_odd_metadata_is_one_error_with_the_file_or_harmless(released):
    tensors, metadata, path = released
    assert unexpected_errors(tensors, metadata, path, load_released_tokenizer) == []


def test_a_missing_block_is_named(tmp_path):
    path = tmp_path / "whole.safetensors"
    made(KINDS["image"], path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {key: tensor for key, tensor in load_file(path).items() if not key.startswith("encoder.blocks.0.")}
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"whole.safetensors: it lacks encoder\.blocks\.0\."):
        load_released_tokenizer(path)


def test_heads_that_do_not_divide_the_width_are_an_error(tmp_path):
    path = tmp_path / "whole.safetensors"
    made(KINDS["image"], path)
    with pytest.raises(ValueError, match=r"whole.safetensors: .*dim is 12; it must be a multiple of num_heads \(5\)"):
        load_released_tokenizer(path, encoder_heads=5)


def test_a_codebook_that_was_never_used_is_an_error(tmp_path):
    path = tmp_path / "whole.safetensors"
    made(KINDS["image"], path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {INITIALIZED: torch.zeros(1)}, path, metadata)
    with pytest.raises(ValueError, match=f"{INITIALIZED} is 0: its codebook was never used"):
        load_released_tokenizer(path)


def test_the_first_export_keeps_the_metadata(tmp_path):
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    made(KINDS["vectors"], theirs)
    with safe_open(theirs, "pt") as file:
        metadata = file.metadata() | {"norm_codes": "True", "code_replacement_policy": "linde_buzo_gray", "note": "theirs"}
    del metadata["sync_codebook"]
    save_file(load_file(theirs), theirs, metadata)
    export_released_tokenizer(load_released_tokenizer(str(theirs)), str(ours))
    assert safe_open(ours, "pt").metadata() == metadata


def test_a_trunk_without_a_name_in_the_reference_is_exported_under_ours_with_a_warning(tmp_path, caplog):
    path = tmp_path / "ours.safetensors"
    five = TrunkConfig(dim=20, depth=1, num_heads=5, mlp_ratio=2)
    with caplog.at_level("WARNING"):
        made(ViTVQVAEConfig(**SMALL | {"encoder": five}, decoder=PLAIN), path)
    assert "no ViT of this size, so the file names it vit_heads3_dec and vit_heads5_enc" in caplog.text
    assert load_released_tokenizer(path).config.encoder == five
    caplog.clear()
    made_again = load_released_tokenizer(path)
    assert made_again.config.decoder == PLAIN and not caplog.text


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.json"
    made_by_the_library(path)
    return json.loads(path.read_text()), path.with_name("damaged.json")


TEXT_PARTS = [
    ("model",),
    ("added_tokens",),
    ("normalizer",),
    ("pre_tokenizer",),
    ("decoder",),
    *(("model", key) for key in ("type", "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word")),
    *(("normalizer", key) for key in ("type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase")),
    *(("decoder", key) for key in ("type", "prefix", "cleanup")),
    ("pre_tokenizer", "type"),
]


@pytest.mark.parametrize("keys", TEXT_PARTS, ids=".".join)
@pytest.mark.parametrize("damage", ["removed", None, 7, "odd", []], ids=repr)
def test_every_damaged_part_of_the_text_tokenizer_is_one_error(text, keys, damage):
    stored, path = text
    if keys == ("normalizer", "strip_accents") and damage is None:
        pytest.skip("null is its value")
    *above, last = keys
    changed = stored | {part: dict(stored[part]) for part in above}
    place = changed[above[0]] if above else changed
    if damage == "removed":
        del place[last]
    else:
        place[last] = damage
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=last) as error:
        load_released_text(str(path))
    assert str(error.value).count(str(path)) == 1 and "\n" not in str(error.value)


@pytest.mark.parametrize("entry", ["[PAD]", "[S_7]", "v2=500", "zebra", "ride"])
def test_every_missing_entry_of_the_text_tokenizer_is_an_error(text, entry):
    stored, path = text
    vocab = {name: number for name, number in stored["model"]["vocab"].items() if name != entry}
    path.write_text(json.dumps(stored | {"model": stored["model"] | {"vocab": vocab}}))
    with pytest.raises(ValueError, match=f"without gaps, but {stored['model']['vocab'][entry]} is missing"):
        load_released_text(path)
    if entry == "ride":  # a word, not an added token
        return
    added = [token for token in stored["added_tokens"] if token["content"] != entry]
    path.write_text(json.dumps(stored | {"added_tokens": added}))
    with pytest.raises(ValueError, match="added_tokens"):
        load_released_text(path)


def test_options_that_would_change_ids_are_refused(text):
    stored, path = text
    path.write_text(json.dumps(stored | {"truncation": {"max_length": 10}}))
    with pytest.raises(ValueError, match=r"its truncation is .*4M's text tokenizers must have none"):
        load_released_text(path)
    with pytest.raises(ValueError, match=r"nowhere.json does not exist"):
        load_released_text(path.with_name("nowhere.json"))
