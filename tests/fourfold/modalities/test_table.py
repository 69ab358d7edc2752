"""The table of modalities: sizes of the released models, names with a resolution, one encoding for each kind."""

import json
from pathlib import Path

import pytest
import yaml

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import (
    FOUR_M_7,
    LABELS,
    TOKEN_MODALITIES,
    Label,
    TokenModality,
    label,
    register_modality,
    target_of,
    token_modality,
)
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.formats import DENSE_FORMATS
from fourfold.tokenizers.text.sequences import SEQUENCE_FORMATS
from pipelines.parameters import Parameters

ROOT = Path(__file__).parents[3]
# Kind, vocabulary and tokens at 224 pixels of the released 4M-21 models (arXiv 2406.09406).
RELEASED = {
    "tok_rgb": ("grid", 16384, (224 // 16) ** 2),
    "tok_depth": ("grid", 8192, (224 // 16) ** 2),
    "tok_semseg": ("grid", 4096, (224 // 16) ** 2),
    "tok_canny_edge": ("grid", 8192, (224 // 16) ** 2),
    "tok_sam_edge": ("grid", 8192, (224 // 16) ** 2),
    "tok_dinov2": ("grid", 8192, (224 // 14) ** 2),
    "tok_imagebind": ("grid", 8192, (224 // 14) ** 2),
    "tok_dinov2_global": ("grid", 8192, (224 // 56) ** 2),
    "tok_imagebind_global": ("grid", 8192, (224 // 56) ** 2),
    "t5_caption": ("vectors", 0, 77),
    "metadata": ("sequence", 30_000, 40),
    "human_poses": ("sequence", 30_000, 275),
    "color_palette": ("sequence", 30_000, 23),
    "sam_instance": ("sequence", 30_000, 290),
    "caption": ("sequence", 30_000, 256),
}


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_are_those_of_the_released_models(name):
    entry = token_modality(name)
    assert (entry.kind, entry.released_vocabulary, entry.released_tokens) == RELEASED[name]
    assert entry.learned_positions == name.endswith("_global")
    assert entry.input_only == (name == "t5_caption")


def test_names_with_a_resolution():
    assert token_modality("tok_depth@224").released_grid == token_modality("tok_depth").released_grid == (14, 14)
    assert token_modality("tok_depth@448").released_tokens == token_modality("rgb@448").released_tokens == 784
    assert token_modality("tok_dinov2@448").released_grid == (32, 32)
    for name, message in (
        ("tok_depth@450", "a multiple of 16"),
        ("tok_depth@big", "a multiple of 16"),
        ("caption@448", "is no image, so it has no resolution"),
        ("tok_dinov2_global@448", "is no image, so it has no resolution"),
        ("tok_dpeth@448", "Did you mean 'tok_depth'"),
    ):
        with pytest.raises(ValueError, match=message):
            token_modality(name)


def test_every_label_has_a_target_unless_it_is_input_only():
    assert {entry.label for entry in TOKEN_MODALITIES.values()} == set(LABELS)
    for name in LABELS:
        if name == "t5_caption":
            with pytest.raises(ValueError, match="can only be an input"):
                target_of(name)
        else:
            assert target_of(name).label == name


def test_every_kind_has_one_encoding():
    assert not DENSE_FORMATS.keys() & SEQUENCE_FORMATS.keys()
    for name in FOUR_M_7:
        kind = label(token_modality(name).label).kind
        assert (kind in DENSE_FORMATS) == (token_modality(name).kind in ("grid", "pixels"))
        assert (kind in SEQUENCE_FORMATS) == (token_modality(name).kind == "sequence")


def test_a_model_of_all_modalities_can_be_masked():
    shapes = {"pixels": "grid", "grid": "grid", "sequence": "max_length", "vectors": "max_length"}
    modalities = [
        ModalityConfig(
            name=name,
            kind=entry.kind,
            vocabulary_size=entry.released_vocabulary,
            vector_width=entry.vector_width,
            **{shapes[entry.kind]: entry.released_grid or entry.released_tokens},
        )
        for name, entry in TOKEN_MODALITIES.items()
    ]
    masker = Masker(MaskingConfig(), ModelConfig(modalities=tuple(modalities)), SentinelIds(3, tuple(range(5, 204))))
    assert masker.chunk_lengths["metadata"] == 2 and masker.shuffled == {"metadata"}


def merged(base, changes):
    """Merge as OmegaConf's soft strategy does: sections by key, anything else is replaced."""
    both = base.keys() & changes.keys()
    nested = {k: merged(base[k], changes[k]) for k in both if isinstance(base[k], dict) and isinstance(changes[k], dict)}
    return base | changes | nested


def test_extended_environment_is_consistent():
    base, changes = (yaml.safe_load((ROOT / f"conf/{name}/parameters.yml").read_text()) for name in ("base", "extended"))
    parameters = Parameters(**merged(base, changes))
    tokenizing: TokenizersConfig = parameters.tokenizer_training
    made = {target_of(name).name for name in (*tokenizing.visual, *tokenizing.sequences, "caption", "det")}
    assert set(parameters.pseudo_labeling.labelers) == {*tokenizing.visual, *tokenizing.sequences, "det"} - {"rgb"}
    assert len(made) == 11
    for component in parameters.pretraining.masking.components:
        assert component.alpha_target.keys() == made and component.alpha_in.keys() <= made | {"rgb"}
    assert parameters.pretraining.num_steps == 72_000 // 16
    catalogs = [yaml.safe_load((ROOT / f"conf/{name}/catalog.yml").read_text()) for name in ("base", "extended")]
    assert catalogs[0]["registered_model"]["inputs"].items() < catalogs[1]["registered_model"]["inputs"].items()
    json.dumps(parameters.model_dump(mode="json"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/*/catalog.yml")), ids=lambda path: path.parent.name)
def test_a_new_modality_of_the_labels_needs_no_change_of_the_catalog(path):
    checks = (yaml.safe_load(path.read_text()) or {}).get("labels", {}).get("validator", {}).get("options", {})
    assert not [one for one in checks.get("expectations", ()) if one.get("column") == "modality"]


def test_registered_modality_must_be_new_and_consistent():
    heat = Label("heat", "kelvin", "npy", "float16", 0, "a thermal camera", "smooth_l1", "kelvin")
    with pytest.raises(ValueError, match="Two modalities are called 'depth'"):
        register_modality(LABELS["depth"])
    with pytest.raises(ValueError, match="Two modalities are called 'tok_depth'"):
        register_modality(heat, TOKEN_MODALITIES["tok_depth"])
    with pytest.raises(ValueError, match="Token modality 'tok_heat' names label 'depth'; it must be 'heat'"):
        register_modality(heat, TokenModality("tok_heat", "depth", "grid", 8192, 196))
    assert "heat" not in LABELS and "tok_heat" not in TOKEN_MODALITIES
