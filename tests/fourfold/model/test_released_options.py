"""Options of released models without a golden file, against a plain computation from the file's keys in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fourfold.model.batch import MaskedBatch
from fourfold.model.released.checkpoint import export_released, load_released

from .plain_reference import Plain
from .released_files import SMALL, VALUES, as_ours, batch_of, below_each_other, checkpoint, write

REFERENCE = Path(__file__).parents[2] / "reference"
CLOSE = {"atol": 5e-5, "rtol": 0}
BIASES = dict.fromkeys(("qkv_bias", "proj_bias", "mlp_bias", "norm_bias"), True)
T5 = {"t5_caption": ("vectors", 6, 7, "")}
VARIANTS = {
    "swiglu": ({}, SMALL),
    "gelu with biases": ({"gated_mlp": False, "act_layer": "GELU", **BIASES}, SMALL),
    "relu without gates": ({"gated_mlp": False, "act_layer": "ReLU"}, SMALL),
    "gates of gelu": ({"act_layer": "GELU", "proj_bias": True}, SMALL),
    "qk-norm": ({"qk_norm": True, "norm_bias": True}, SMALL),
    "registers": ({"num_register_tokens": 3}, SMALL),
    "deep and narrow": ({"dim": 16, "num_heads": 1, "encoder_depth": 3, "decoder_depth": 1, "mlp_ratio": 2.5}, SMALL),
    "causal targets": ({"decoder_causal_mask": True}, SMALL),
    "targets together": ({"decoder_sep_mask": False}, SMALL),
    "causal targets together": ({"decoder_causal_mask": True, "decoder_sep_mask": False}, SMALL),
    "learned places": ({}, {name: (*entry[:3], "learned") for name, entry in SMALL.items()}),
    "global features": ({}, SMALL | {"tok_dinov2_global": ("grid", 7, (2, 2), "learned")}),
    "vectors": ({}, SMALL | T5),
    "vectors through a bottleneck": ({}, SMALL | {"t5_caption": ("vectors", 6, 7, "bottleneck")}),
    "one side only": (
        {},
        SMALL
        | {
            "tok_clip@224": ("grid", 7, (3, 3), "input"),
            "metadata": ("sequence", 9, 6, "target"),
            "color_palette": ("sequence", 9, 6, "input"),
        },
    ),
    "two resolutions": (
        {},
        {"rgb@448": ("pixels", 0, (6, 6), ""), **SMALL, "tok_depth@448": ("grid", 11, (6, 6), "")},
    ),
    "another grid and patch": (
        {"patch_size": 16, "true_patch_size": 4, "image_size": 16},
        SMALL | {"rgb@224": ("pixels", 0, (5, 2), "")},
    ),
}


def compare(tensors, values, modalities, path: Path, ties: bool = True):
    """Load the file and compare all states, logits and losses."""
    kinds = {name: entry[0] for name, entry in modalities.items()}
    lengths = {name: entry[2] for name, entry in modalities.items() if entry[0] == "sequence"}
    batch = batch_of(modalities, values)
    plain = Plain(tensors, values, kinds, lengths).run(batch, most_inputs=18, most_targets=24)
    model = load_released(path)
    ours = as_ours(plain["sides"], batch, modalities, model.config, lengths)
    with torch.no_grad():
        encoding = model.encode(ours)
        hidden_BMD = model.decode(ours, encoding)
        logits, targets = model.target_logits(hidden_BMD, ours)
        losses = {name: model(ours, loss=name) for name in ("reference_modality", "reference_token")}
    registers = values["num_register_tokens"]
    for b, (features, context, out) in enumerate(plain["states"]):
        for found, expected in (
            (encoding.features_BND[b], features[registers:]),
            (encoding.context_BND[b], context[registers:]),
            (hidden_BMD[b], out),
        ):
            torch.testing.assert_close(found[: len(expected)].double(), expected, **CLOSE)
    assert set(logits) == set(plain["logits"])
    for name, expected in plain["logits"].items():
        assert torch.equal(targets[name], plain["ids"][name])
        torch.testing.assert_close(logits[name].double(), expected, **CLOSE)
        torch.testing.assert_close(
            losses["reference_token"].per_modality[name].double(), plain["losses"][name], atol=1e-5, rtol=0
        )
    for name in ("modality", "token"):
        torch.testing.assert_close(losses[f"reference_{name}"].total.double(), plain[name], atol=1e-5, rtol=0)
    return model


@pytest.mark.parametrize("ties", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("changes", "modalities"), VARIANTS.values(), ids=VARIANTS)
def test_released_options_equal_the_plain_computation_and_export_again(tmp_path, changes, modalities, ties):
    values = VALUES | changes
    tensors = checkpoint(values, modalities, ties=ties)
    path = write(tensors, values, modalities, tmp_path / "theirs.safetensors")
    model = compare(tensors, values, modalities, path)
    assert model.config.tied_heads == ties
    export_released(model, tmp_path / "one.safetensors")
    export_released(load_released(tmp_path / "one.safetensors"), tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    again = load_file(tmp_path / "one.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_loaded(tmp_path, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in checkpoint(VALUES, SMALL).items()}
    compare(tensors, VALUES, SMALL, write(tensors, VALUES, SMALL, tmp_path / "half.safetensors"))


def test_nonzero_bias_buffers_of_norms_are_added(tmp_path):
    tensors = checkpoint(VALUES, SMALL)
    tensors["encoder.1.norm2.bias"] += 0.5
    compare(tensors, VALUES, SMALL, write(tensors, VALUES, SMALL, tmp_path / "odd.safetensors"))


@pytest.mark.parametrize(
    "spelling",
    [{"True": "true", "False": "false"}, {"4.0": "4"}, {"24": "[24, 24]"}, {"24": "(24, 24)"}],
    ids=["YAML", "whole", "list", "tuple"],
)
def test_metadata_may_be_spelled_as_json_or_yaml(tmp_path, spelling):
    tensors = checkpoint(VALUES, SMALL)
    header = {key: str(value) for key, value in VALUES.items()}
    header |= {key: spelling.get(text, text) for key, text in header.items() if key != "dim"} | {"format": "pt"}
    save_file(tensors, tmp_path / "other.safetensors", header)
    compare(tensors, VALUES, SMALL, tmp_path / "other.safetensors")


def test_a_model_hub_folder_is_loaded_with_its_shared_tensors(tmp_path):
    tensors = checkpoint(VALUES, SMALL)
    same = {f"decoder_embeddings.{name}.mod_emb": f"encoder_embeddings.{name}.mod_emb" for name in SMALL if name != "rgb@224"}
    save_file(
        {key: tensor for key, tensor in tensors.items() if key not in same},
        tmp_path / "model.safetensors",
        same | {"format": "pt"},
    )
    (tmp_path / "config.json").write_text(json.dumps(VALUES))
    compare(tensors, VALUES, SMALL, tmp_path)


@pytest.mark.parametrize("kind", ["decoder mod_emb", "to_logits", "biases of norms"])
def test_tensors_equal_to_others_may_be_omitted_all_of_a_kind(tmp_path, kind):
    tensors = checkpoint(VALUES, SMALL)
    left_out = {
        "decoder mod_emb": {key for key in tensors if key.startswith("decoder_emb") and key.endswith("mod_emb")},
        "to_logits": {key for key in tensors if key.endswith("to_logits.weight")},
        "biases of norms": {key for key in tensors if "norm" in key and key.endswith("bias")},
    }[kind]
    fewer = {key: tensor for key, tensor in tensors.items() if key not in left_out}
    compare(tensors, VALUES, SMALL, write(fewer, VALUES, SMALL, tmp_path / "few.safetensors"))
    said = {"share_modality_embeddings": False, "norm_bias": True}
    with pytest.raises(ValueError, match=f"lacks {min(left_out)}"):
        load_released(write(fewer, VALUES | said, SMALL, tmp_path / "few.safetensors"))


def test_missing_metadata_has_the_defaults_of_the_4m_code(tmp_path):
    values = VALUES | {"num_heads": 12, "gated_mlp": False, "act_layer": "GELU", **BIASES}
    unsaid = (
        "num_heads",
        "mlp_ratio",
        "gated_mlp",
        "act_layer",
        "qkv_bias",
        "proj_bias",
        "mlp_bias",
        "qk_norm",
        "norm_bias",
        "num_register_tokens",
    )
    tensors = checkpoint(values, SMALL)
    path = write(
        tensors, {key: value for key, value in values.items() if key not in unsaid}, SMALL, tmp_path / "short.safetensors"
    )
    compare(tensors, values, SMALL, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.1.attn.qkv.weight": None}, r"lacks encoder\.1\.attn\.qkv\.weight\. Download"),
        ({"decoder.0.mlp.fc2.weight": None, "mask_token": None}, r"lacks decoder\.0\.mlp\.fc2\.weight, mask_token\. Download"),
        ({"encoder_embeddings.caption.token_emb.weight": None}, r"lacks encoder_embeddings\.caption\.token_emb\.weight\. "),
        (
            {"encoder_embeddings.det.mod_emb": None, "decoder_embeddings.det.mod_emb": None},
            "lacks decoder_embeddings.det.mod_emb, enc",
        ),
        ({"encoder.7.norm1.weight": (24,)}, r"has encoder\.7\.norm1\.weight, which its metadata does not allow"),
        ({"encoder.0.attn.qkv.bias": (72,)}, r"has encoder\.0\.attn\.qkv\.bias, which its metadata does not allow"),
        ({"encoder.0.mlp.fc1.weight": (60, 24)}, r"fc1\.weight has the shape \(60, 24\); its metadata implies \(64, 24\)"),
        ({"mask_token": (1, 1, 23)}, r"mask_token has the shape \(1, 1, 23\)"),
        ({"decoder_embeddings.caption.to_logits.weight": (12, 24)}, r"caption\.to_logits\.weight has the shape \(12, 24\)"),
        ({"encoder_embeddings.rgb@224.proj.weight": (24, 100)}, r"rgb@224\.proj\.weight has patches of 100 numbers"),
    ],
)
def test_tensors_that_contradict_the_metadata_are_rejected(tmp_path, change, message):
    tensors = checkpoint(VALUES, SMALL) | {key: None if shape is None else torch.ones(shape) for key, shape in change.items()}
    path = write(
        {key: tensor for key, tensor in tensors.items() if tensor is not None}, VALUES, SMALL, tmp_path / "odd.safetensors"
    )
    with pytest.raises(ValueError, match=message) as error:
        load_released(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"act_layer": "Mish"}, "have Mish; SiLU, GELU, ReLU are supported"),
        ({"dim": 36}, "caption.pos_emb have the width 24, 24; the metadata implies dim 36"),
        ({"encoder_depth": 3}, "lacks encoder.2"),
        ({"decoder_depth": 1}, "has decoder.1.*, which its metadata does not allow"),
        ({"num_heads": 5}, "do not fit: Value error, `dim` 24 must be a multiple of `num_heads` 5"),
        ({"encoder_depth": "two"}, "do not fit: encoder_depth Input should be a valid integer"),
        ({"image_size": "big"}, "image_size is 'big'"),
    ],
)
def test_metadata_that_contradicts_the_tensors_is_rejected(tmp_path, values, message):
    path = write(checkpoint(VALUES, SMALL), VALUES | values, SMALL, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        load_released(path)
    assert "\n" not in str(error.value)


def test_maximum_text_lengths_are_those_of_released_models(tmp_path):
    modalities = SMALL | T5 | {"notes": ("sequence", 9, 6, ""), "metadata": ("sequence", 9, 6, "learned")}
    model = load_released(write(checkpoint(VALUES, modalities), VALUES, modalities, tmp_path / "texts.safetensors"))
    found = {modality.name: modality.max_length for modality in model.config.modalities if modality.max_length}
    assert found == {"caption": 256, "det": 256, "metadata": 6, "notes": 512, "t5_caption": 77}


def test_other_files_are_rejected_by_name(tmp_path):
    (tmp_path / "text.safetensors").write_text("a text")
    for name in ("text.safetensors",):
        with pytest.raises(ValueError, match=f"{name} is not a released safetensors file"):
            load_released(tmp_path / name)
    write({"weight": torch.ones(1)}, VALUES, SMALL, tmp_path / "else.safetensors")
    with pytest.raises(ValueError, match="it is not a 4M model"):
        load_released(tmp_path / "else.safetensors")


def test_missing_pixels_of_a_resolution_are_named(tmp_path):
    modalities = VARIANTS["two resolutions"][1]
    model = load_released(write(checkpoint(VALUES, modalities), VALUES, modalities, tmp_path / "two.safetensors"))
    small, large = model.config.index("rgb@224"), model.config.index("rgb@448")
    zeros = torch.zeros(1, 2, dtype=torch.int64)
    images = {index: torch.randn(1, *(8 * side for side in model.config.modalities[index].grid), 3) for index in (small, large)}

    def batch(index: int, pixels: torch.Tensor) -> MaskedBatch:
        none = zeros[:, :0]
        return MaskedBatch(zeros + index, torch.tensor([[1, 8]]), zeros, none, none, none, none, pixels)

    both = below_each_other([images[small], images[large]])
    with torch.no_grad():
        for index, image in images.items():
            torch.testing.assert_close(
                model.encode(batch(index, image)).features_TD, model.encode(batch(index, both)).features_TD
            )
        for too_small in (images[small], torch.zeros(1, 8, 8, 3)):
            with pytest.raises(ValueError, match="has patches of rgb@448, but no pixels of that resolution"):
                model.encode(batch(large, too_small))


def test_the_plain_computation_equals_the_golden_vectors():
    values = VALUES | {"dim": 64, "num_heads": 2}
    with np.load(REFERENCE / "fourm_tiny_io.npz") as file:
        arrays = dict(file)
    tensors = load_file(REFERENCE / "fourm_tiny.safetensors")
    for prefix, most in (("", (48, 48)), ("edge/", (20, 30))):
        order = json.loads(str(arrays[f"{prefix}batch_order"]))
        parts = ("tensor", "input_mask", "target_mask", "decoder_attention_mask")
        batch = {name: {part: torch.tensor(arrays[f"{prefix}batch/{name}/{part}"]) for part in parts} for name in order}
        kinds = {
            name: "pixels" if name.startswith("rgb") else "grid" if name.startswith("tok") else "sequence" for name in order
        }
        plain = Plain(tensors, values, kinds, {"caption": 24, "det": 24})
        found = plain.run(batch, *most)
        for name, expected in found["logits"].items():
            torch.testing.assert_close(expected, torch.tensor(arrays[f"{prefix}logits/{name}"]).double(), **CLOSE)
        for loss, theirs in (("modality", "loss_mod"), ("token", "loss_token")):
            assert float(found[loss]) == pytest.approx(float(arrays[f"{prefix}{theirs}/total"]), abs=1e-5)
