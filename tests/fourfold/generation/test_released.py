"""Released sets as models: loaded, imported, exported, and used like models of ours."""

import base64
import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from fourfold.demo.values import present
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.released import find_released, is_released, labels_of_name
from fourfold.generation.requests import generate
from fourfold.generation.retrieval import embed
from fourfold.generation.serving import ServedModel
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.model.released.files import read_metadata
from fourfold.tokenizers.released.checkpoint import load_released_tokenizer
from fourfold_ops.registry.serving import AnyInput
from fourfold_ops.server.worker import plain
from pipelines.cli import cli
from tests.support.released_set import SIDE, make_released_set

LABELS = ["rgb", "depth", "normal", "semseg", "clip", "canny_edge", "dinov2_global", "caption", "det", "metadata"]
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
SHORT = GenerationConfig(sequences=TargetConfig(max_tokens=6))
SHAPES = {
    "rgb": ((SIDE, SIDE, 3), np.uint8),
    "depth": ((SIDE, SIDE), np.float16),
    "normal": ((SIDE, SIDE, 3), np.uint8),
    "semseg": ((SIDE, SIDE), np.uint8),
    "clip": ((2, 2, 5), np.float16),
    "canny_edge": ((SIDE, SIDE), np.uint8),
    "dinov2_global": ((6,), np.float16),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_released_set(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def model(folder):
    return AnyToAny.from_released(str(folder))


def test_every_label_is_predicted_from_an_image(model):
    found = generate(model, {"rgb": IMAGE}, LABELS, preset=SHORT)
    assert {name: (found[name].shape, found[name].dtype) for name in SHAPES} == SHAPES
    assert isinstance(found["caption"], str) and "instances" in found["det"] and isinstance(found["metadata"], dict)
    again = generate(model, {"rgb": IMAGE}, ["rgb", "caption"], preset=SHORT)
    assert np.array_equal(found["rgb"], again["rgb"]) and found["caption"] == again["caption"]


@pytest.mark.parametrize("name", [*SHAPES, "caption"])
def test_every_label_is_a_condition(model, name):
    value = "a man rides" if name == "caption" else generate(model, {"rgb": IMAGE}, [name])[name]
    assert generate(model, {name: value}, ["semseg"])["semseg"].shape == (SIDE, SIDE)


def test_tokens_are_those_of_the_released_networks(folder, model):
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None] / 255
    mean, deviation = (torch.tensor(row)[:, None, None] for row in (IMAGENET_MEAN, IMAGENET_STD))
    depth = RNG.uniform(1, 9, (SIDE, SIDE)).astype(np.float16)
    ordered = np.sort(depth.astype(np.float64).ravel())
    kept = ordered[int(0.1 * len(ordered)) : len(ordered) - int(0.1 * len(ordered))]
    relative = (depth.astype(np.float64) - kept.mean()) / np.sqrt(kept.var(ddof=1) + 1e-6)
    classes = RNG.choice([0, 7, 132, 255], (SIDE, SIDE)).astype(np.uint8)
    clip = RNG.normal(size=(2, 2, 5)).astype(np.float16)
    vector = RNG.normal(size=6).astype(np.float16)
    for label, name, value, inputs in (
        ("rgb", "rgb_16k_224-448", IMAGE, (image - mean) / deviation),
        ("normal", "normal_8k_224-448", IMAGE, image * 2 - 1),
        ("depth", "depth_8k_224-448", depth, torch.tensor(relative, dtype=torch.float32)[None, None]),
        ("semseg", "semseg_4k_224-448", classes, torch.tensor((classes.astype(int) + 1) % 256)[None]),
        ("clip", "CLIP-B16_8k_224-448", clip, torch.tensor(clip).float().permute(2, 0, 1)[None]),
        ("dinov2_global", "DINOv2-B14-global_8k_16_224", vector, torch.tensor(vector).float()[None, :, None, None]),
    ):
        network = load_released_tokenizer(folder / f"4M_tokenizers_{name}")
        with torch.no_grad():
            expected = network.tokens(inputs).flatten().numpy()
        assert np.array_equal(model.tokenizers.tokens(label, value[None])[0], expected), label


def test_depth_tokens_do_not_depend_on_scale_and_offset(model):
    depth = RNG.uniform(1, 9, (1, SIDE, SIDE)).astype(np.float32)
    tokens = [model.tokenizers.tokens("depth", value) for value in (depth, 3 * depth + 2)]
    assert np.array_equal(*tokens)


def test_an_imported_model_is_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "ours")
    loaded = AnyToAny.load(tmp_path / "ours")
    assert loaded.digests() == model.digests() and loaded.provenance == model.provenance
    assert loaded.tokenizers.config == model.tokenizers.config
    expected, found = (generate(one, {"rgb": IMAGE}, ["depth", "clip", "caption"], preset=SHORT) for one in (model, loaded))
    assert all(np.array_equal(expected[name], found[name]) for name in ("depth", "clip"))
    assert expected["caption"] == found["caption"]


def test_export_is_the_inverse_of_import(folder, model, tmp_path):
    model.save(tmp_path / "ours")
    AnyToAny.load(tmp_path / "ours").export_released(tmp_path / "theirs")
    before, after = find_released(folder), find_released(tmp_path / "theirs")
    assert after.tokenizers.keys() == before.tokenizers.keys() - {"sam_edge"}  # which the model lacks
    for label, path in after.tokenizers.items():
        assert path.read_bytes() == before.tokenizers[label].read_bytes()
    assert read_metadata(before.model) == read_metadata(after.model)
    tensors = [load_file(files.model) for files in (before, after)]
    assert tensors[0].keys() == tensors[1].keys() and all(torch.equal(tensors[1][key], one) for key, one in tensors[0].items())
    assert json.loads(before.text.read_text()) == json.loads(after.text.read_text())


def test_provenance_has_the_digests_and_the_license(folder, model):
    files = {entry["name"]: entry["sha256"] for entry in model.provenance["files"]}
    assert files == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    assert {"4M-21_B/model.safetensors", "4M-21_B/LICENSE", "text_tokenizer_4m_wordpiece_30k.json"} < files.keys()
    assert len(files) == 10 and model.provenance["license"] == "4M-21_B/LICENSE"


def test_retrieval_has_released_features(model):
    unit = embed(model, {"rgb": [IMAGE, IMAGE[::-1].copy()]}, "clip")
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-3)


def test_commands_import_generate_and_export(folder, tmp_path):
    def run(*arguments) -> str:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    assert "License of the weights: 4M-21_B/LICENSE" in run("import-released", folder, "--out", tmp_path / "ours")
    for number, source in enumerate((folder, tmp_path / "ours")):
        out = tmp_path / f"generated{number}"
        run("generate", "--model", source, "--image", tmp_path / "image.png", "--to", "depth,semseg", "--out", out)
    made = sorted(path.name for path in (tmp_path / "generated0").iterdir())
    assert {"depth.npy", "semseg.png", "sheet.png"} < set(made)
    assert all((tmp_path / "generated0" / name).read_bytes() == (tmp_path / "generated1" / name).read_bytes() for name in made)
    run("export-released", tmp_path / "ours", "--out", tmp_path / "theirs")
    assert is_released(tmp_path / "theirs") and not is_released(tmp_path / "ours")
    again = CliRunner().invoke(cli, ["import-released", str(folder), "--out", str(tmp_path / "ours")])
    assert again.exit_code and "exists. Choose another folder" in again.output


def test_names_of_the_model_hub_tell_the_labels():
    names = {
        "4M_tokenizers_CLIP-B16_8k_224-448": ["clip"],
        "4M_tokenizers_edge_8k_224-512": ["canny_edge", "sam_edge"],
        "4M_tokenizers_DINOv2-B14_8k_224-448": ["dinov2"],
        "4M_tokenizers_DINOv2-B14-global_8k_16_224": ["dinov2_global"],
        "4M_tokenizers_ImageBind-H14-global_8k_16_224": ["imagebind_global"],
        "tok_depth": ["depth"],
        "sam_edge": ["sam_edge"],
        "anything": [],
        "depth_and_normal": [],
    }
    assert {name: labels_of_name(name) for name in names} == names


def broken(folder, copy, change) -> None:
    shutil.copytree(folder, copy)
    change(copy)
    AnyToAny.from_released(copy)


def test_incomplete_sets_are_one_error(folder, tmp_path):
    def other_vocabulary(copy):
        path = copy / "4M_tokenizers_semseg_4k_224-448" / "model.safetensors"
        shutil.copyfile(copy / "4M_tokenizers_normal_8k_224-448" / "model.safetensors", path)

    def fewer_words(copy):
        path = copy / "text_tokenizer_4m_wordpiece_30k.json"
        stored = json.loads(path.read_text())
        stored["model"]["vocab"].popitem()
        path.write_text(json.dumps(stored))

    changes = {
        "must have one text tokenizer": lambda copy: (copy / "text_tokenizer_4m_wordpiece_30k.json").unlink(),
        "must have one transformer": lambda copy: shutil.rmtree(copy / "4M-21_B"),
        "must have one transformer .* found .*4M-21_B.*, .*other": lambda copy: shutil.copytree(
            copy / "4M-21_B", copy / "other"
        ),
        "its name does not tell the modality": lambda copy: (copy / "4M_tokenizers_depth_8k_224-448").rename(copy / "some"),
        "has two tokenizers of 'depth'": lambda copy: shutil.copytree(copy / "4M_tokenizers_depth_8k_224-448", copy / "depth"),
        "n_labels None; only that of semseg": other_vocabulary,
        "it has .* ids, but the model's caption needs": fewer_words,
    }
    for number, (message, change) in enumerate(changes.items()):
        with pytest.raises(ValueError, match=message) as error:
            broken(folder, tmp_path / str(number), change)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="does not exist or is no folder"):
        AnyToAny.from_released(tmp_path / "nowhere")


def test_a_tokenizer_of_another_size_is_an_error(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "4M-21_B" / "model.safetensors"
    tensors, metadata = load_file(path), read_metadata(path)
    for key in [key for key in tensors if "tok_depth@224" in key and ("token_emb" in key or "to_logits" in key)]:
        tensors[key] = torch.cat([tensors[key], tensors[key][:1]])
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"depth_8k_224-448.*: it has 16 ids, but the model's tok_depth@224 needs 17"):
        AnyToAny.from_released(copy)


def test_missing_tokenizers_are_named_when_they_are_needed(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "4M_tokenizers_depth_8k_224-448")
    model = AnyToAny.from_released(copy)
    assert generate(model, {"rgb": IMAGE}, ["semseg"])["semseg"].shape == (SIDE, SIDE)
    with pytest.raises(ValueError, match="Unknown tokenizer 'depth'"):
        generate(model, {"rgb": IMAGE}, ["depth"])


def test_conditions_may_be_tensors_floats_and_ids_in_rows_or_grids(model):
    expected = generate(model, {"rgb": IMAGE}, ["semseg"])["semseg"]
    assert np.array_equal(generate(model, {"rgb": torch.from_numpy(IMAGE)}, ["semseg"])["semseg"], expected)
    assert np.array_equal(generate(model, {"rgb": IMAGE / np.float32(255)}, ["semseg"])["semseg"], expected)
    ids = model.tokenizers.tokens("depth", RNG.uniform(1, 9, (2, SIDE, SIDE)))
    found = [
        model.predict({"tok_depth": given}, ["clip"])["clip"]
        for given in (ids, ids.reshape(2, 2, 2), torch.from_numpy(ids).long().view(2, 2, 2))
    ]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    images = np.stack([IMAGE, IMAGE[::-1]])
    floats = [images[0] / 255, None]
    mixed = model.predict({"rgb": floats, "tok_depth": ids}, ["clip"])["clip"]
    alone = model.predict({"tok_depth": ids[1:]}, ["clip"])["clip"]
    assert np.array_equal(mixed[1], alone[0])


def test_released_files_are_served_and_shown(folder):
    served = ServedModel.load(folder)
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG")
    adapter = AnyInput(served, served.input_kinds)
    targets = [label for label in served.targets if label in SHAPES and label != "rgb"]
    request = {"rgb": [base64.b64encode(buffer.getvalue()).decode()]}
    [found] = adapter.answer([adapter.prepare(request, {"targets": targets})])
    shown = present(json.loads(json.dumps({name: values[0] for name, values in found.items()}, default=plain)))
    assert list(shown) == targets and shown["depth"]["numbers"]["shape"] == (SIDE, SIDE)
    assert all("image" in shown[name] for name in ("normal", "clip", "canny_edge", "dinov2_global"))
    assert {"rgb", "depth", "caption", "metadata"} <= set(served.inputs)
