"""Every released file of the transformer, damaged in every way: one ValueError with the file and the key, or a warning."""

import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fourfold.model.released.checkpoint import export_released, load_released
from fourfold.model.released.files import read_released
from tests.fourfold.model.released_files import SMALL, VALUES, checkpoint, write
from tests.support.damage import faults, nonfinite_faults, odd_settings, unexpected_errors

BIASES = dict.fromkeys(("qkv_bias", "proj_bias", "mlp_bias", "norm_bias"), True)
TINY = VALUES | {"dim": 16, "num_heads": 2, "encoder_depth": 1, "decoder_depth": 1}
FEW = {name: SMALL[name] for name in ("rgb@224", "tok_depth@224", "caption")}
KINDS = {
    "tied": ({}, SMALL),
    "biases": (
        {"gated_mlp": False, "act_layer": "GELU", "qk_norm": True, "num_register_tokens": 2, **BIASES},
        FEW,
    ),
    "all kinds": (
        {"share_modality_embeddings": False},
        FEW
        | {
            "tok_dinov2_global": ("grid", 7, (2, 2), "learned"),
            "t5_caption": ("vectors", 6, 7, "bottleneck"),
            "metadata": ("sequence", 9, 6, "target"),
            "tok_clip@224": ("grid", 7, (3, 3), "input"),
        },
    ),
}
# The only tensor with this size in the file: another size is as plausible.
UNKNOWN_SIZES = ("encoder_embeddings.tok_clip@224.token_emb.weight", "encoder_embeddings.t5_caption.emb_proj.0.weight")


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def released(request, tmp_path):
    """Tensors and metadata of a file, and a path for its damaged forms."""
    changes, modalities = request.param
    values = TINY | changes
    path = write(checkpoint(values, modalities), values, modalities, tmp_path / "whole.safetensors")
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata(), tmp_path / "damaged.safetensors"


def test_every_damaged_tensor_is_one_error_with_file_and_key(released):
    tensors, metadata, path = released
    found = faults(tensors, metadata, path, load_released)
    assert not [line for line in found if not (line.startswith(UNKNOWN_SIZES) and line.endswith("loaded"))]


def test_every_nonfinite_tensor_is_a_warning(released, caplog):
    tensors, metadata, path = released
    assert nonfinite_faults(tensors, metadata, path, load_released, caplog) == []


def test_odd_metadata_is_one_error_with_the_file_or_harmless(released):
    tensors, metadata, path = released
    assert unexpected_errors(tensors, metadata, path, load_released) == []


def test_the_checks_find_faults(tmp_path):
    tensors = {"a": torch.ones(2)}
    path = tmp_path / "any.safetensors"
    assert faults(tensors, {}, path, lambda path: None) == ["a removed: loaded", "a shorter: loaded"]
    assert len(unexpected_errors(tensors, {"key": "1"}, path, lambda path: {}["key"])) == len([*odd_settings({"key": "1"})])


@pytest.mark.parametrize("side", ["encoder", "decoder", "both sides"])
def test_a_missing_modality_is_named(tmp_path, side):
    prefixes = tuple(f"{one}_embeddings.caption." for one in ("encoder", "decoder") if side in (one, "both sides"))
    tensors = {key: tensor for key, tensor in checkpoint(TINY, SMALL).items() if not key.startswith(prefixes)}
    path = write(tensors, TINY, SMALL, tmp_path / "fewer.safetensors")
    with pytest.raises(ValueError, match=rf"^{path}: it lacks {prefixes[0][:-1]}, which its domains_(in|out) names\. Download"):
        load_released(path)


def test_a_modality_that_the_domains_do_not_name_is_an_error(tmp_path):
    fewer = {name: entry for name, entry in SMALL.items() if name != "det"}
    path = write(checkpoint(TINY, SMALL), TINY, fewer, tmp_path / "more.safetensors")
    with pytest.raises(ValueError, match=r"has encoder_embeddings.det, but its domains_in does not name det"):
        load_released(path)


def test_pixels_may_be_named_as_targets_which_the_reference_ignores(tmp_path):
    tensors = checkpoint(TINY, SMALL)
    metadata = {key: str(value) for key, value in TINY.items()} | {"domains_out": str(sorted(SMALL))}
    save_file(tensors, tmp_path / "all.safetensors", metadata)
    assert load_released(tmp_path / "all.safetensors").config.names == tuple(sorted(SMALL))


def test_domains_may_be_written_as_yaml(tmp_path):
    metadata = {key: str(value) for key, value in TINY.items()} | {"domains_in": f"[{', '.join(SMALL)}]"}
    save_file(checkpoint(TINY, SMALL), tmp_path / "yaml.safetensors", metadata)
    load_released(tmp_path / "yaml.safetensors")


def test_other_files_are_named_for_what_they_are(tmp_path):
    files = {
        "zip.pth": ("a PyTorch pickle", lambda path: torch.save({"weight": torch.ones(1)}, path)),
        "old.pkl": ("a pickle; pickles can run code", lambda path: path.write_bytes(pickle.dumps([1], protocol=4))),
        "lfs.safetensors": (
            "a pointer of Git LFS",
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        ),
        "page.safetensors": ("an HTML or XML page", lambda path: path.write_text("<!doctype html><html></html>")),
    }
    for name, (what, make) in files.items():
        make(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is not a released safetensors file, but {what}"):
            load_released(tmp_path / name)
    (tmp_path / "hub").mkdir()
    torch.save({}, tmp_path / "hub" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model.safetensors. It has pytorch_model.bin, which are pickles"):
        load_released(tmp_path / "hub")
    with pytest.raises(ValueError, match=r"nowhere.safetensors does not exist") as error:
        load_released(tmp_path / "nowhere.safetensors")
    assert str(error.value).count("nowhere") == 1


def test_a_truncated_file_is_one_error(tmp_path):
    path = write(checkpoint(TINY, FEW), TINY, FEW, tmp_path / "whole.safetensors")
    content = path.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"whole.safetensors is not a released safetensors file"):
            load_released(path)


def test_a_file_without_metadata_says_so(tmp_path):
    save_file(checkpoint(TINY, SMALL), tmp_path / "bare.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"bare.safetensors has no metadata, and there is no config.json beside it"):
        load_released(tmp_path / "bare.safetensors")


def test_paths_may_be_strings(tmp_path):
    path = str(write(checkpoint(TINY, SMALL), TINY, SMALL, tmp_path / "whole.safetensors"))
    export_released(load_released(path), str(tmp_path / "again.safetensors"))
    assert load_file(tmp_path / "again.safetensors").keys() == read_released(path)[0].keys()


@pytest.mark.parametrize("changes", [{"share_modality_embeddings": False}, {"mlp_ratio": "4", "trained_by": "someone"}])
def test_the_first_export_keeps_the_metadata(tmp_path, changes):
    path = write(checkpoint(TINY, SMALL), TINY | changes, SMALL, tmp_path / "theirs.safetensors")
    export_released(load_released(path), tmp_path / "ours.safetensors")
    found = [safe_open(file, "pt").metadata() for file in (path, tmp_path / "ours.safetensors")]
    assert found[0] == found[1]
