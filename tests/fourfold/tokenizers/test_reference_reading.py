"""Reading our shards like the reference's loader: with webdataset and tarfile, without our code."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import braceexpand
import numpy as np
import pytest
import webdataset
from PIL import Image

from fourfold.data.crops import CropConfig, crop_values
from fourfold.data.shards import ShardSet
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.training.run_context import RunContext

from .conftest import GRID, NUM_SAMPLES, SIZE

NUM_CROPS = 4
MODALITIES = ("rgb", "caption", "tok_rgb", "tok_depth", "tok_clip", "crop_settings")


@pytest.fixture(scope="module")
def root(world, tokenizers, tmp_path_factory) -> Path:
    """Return a folder with a link to each modality's folder, as docs/formats.md describes."""
    folder = tmp_path_factory.mktemp("reference_reading")
    tokens = pretokenize(
        *world,
        tokenizers,
        CropConfig(num_crops=NUM_CROPS, flip_probability=0.5),
        RunContext(0, folder / "tokens"),
        splits=["val"],
    )
    (folder / "root").mkdir()
    for name in MODALITIES:
        source = world[0].root if name in ("rgb", "caption") else tokens.root
        (folder / "root" / name).symlink_to(source / "val" / name)
    return folder / "root"


def read(url: str) -> Iterator[dict]:
    """Yield samples of `root/[a,b]/shard-{00000..00001}.tar`: shards expanded, modalities zipped, keys compared."""
    for shard in webdataset.SimpleShardList(url):
        pattern = shard["url"].translate(str.maketrans("[]", "{}"))
        names = re.search(r"\{([^}]*)\}", pattern)[1].split(",")
        parts = [webdataset.tarfile_samples([{"url": one}]) for one in braceexpand.braceexpand(pattern)]
        for members in zip(*parts, strict=True):
            assert len({member["__key__"] for member in members}) == 1
            sample = {"__key__": members[0]["__key__"]}
            for name, member in zip(names, members, strict=True):
                (extension,) = member.keys() - {"__key__", "__url__", "__local_path__"}
                assert "." not in extension
                sample[name] = decoded(extension, member[extension])
            yield sample


def decoded(extension: str, content: bytes):
    if extension == "png":
        return Image.open(io.BytesIO(content))
    return np.load(io.BytesIO(content), allow_pickle=False) if extension == "npy" else content.decode()


def as_named_by_the_reference(url: str, name_map: dict[str, str], paths: dict[str, str]) -> Iterator[dict]:
    """Yield samples with the reference's names: `<modality>.<extension>` by folder, without the extension, tokens int64.

    `name_map`: folder → modality, of its data configuration; `paths`: modality → what it is called until then.
    """
    pattern = url.translate(str.maketrans("[]", "{}"))
    names = re.search(r"\{([^}]*)\}", pattern)[1].split(",")
    for members in zip(*(webdataset.tarfile_samples([{"url": one}]) for one in braceexpand.braceexpand(pattern)), strict=True):
        found = {}
        for name, member in zip(names, members, strict=True):
            content = {key: value for key, value in member.items() if not key.startswith("__")}
            for extension, value in content.items():
                whole = len(content) > 1 or extension.count(".") == 1 + (".gz" in extension)
                key = extension if whole else f"{name_map.get(name, name)}.{extension}"
                found[key.replace(".gz", "").rpartition(".")[0]] = decoded(key.rpartition(".")[2], value)
        found = {key: value.astype("int64") if "tok_" in key else value for key, value in found.items()}
        yield {modality: found[path] for modality, path in paths.items()}


def test_samples_have_the_fields_that_the_reference_reads(root):
    """Map folder names to the reference's names with a resolution: pixels by its table, tokens by `modality_name_map`."""
    folders = ("rgb", "caption", "tok_rgb", "tok_depth", "crop_settings")
    tokens = {"tok_rgb": "tok_rgb@224", "tok_depth": "tok_depth@224"}
    paths = {"rgb@224": "rgb", **{name: name for name in ("caption", *tokens.values(), "crop_settings")}}
    found = list(as_named_by_the_reference(f"{root}/[{','.join(folders)}]/shard-00000.tar", tokens, paths))
    assert found and all(sample.keys() == paths.keys() for sample in found)
    for sample in found:
        assert isinstance(sample["caption"], str) and sample["rgb@224"].mode == "RGB"
        for drawn in range(len(sample["crop_settings"])):  # one number for all modalities of a sample
            top, left, height, width, flip = sample["crop_settings"][drawn]
            assert flip in (0, 1) and 0 <= top <= SIZE - height and 0 <= left <= SIZE - width
            for name in tokens.values():
                assert sample[name].dtype == np.int64 and sample[name][drawn].shape == (GRID * GRID,)


def test_every_sample_has_all_modalities_in_their_shapes(root, world):
    samples = list(read(f"{root}/[{','.join(MODALITIES)}]/shard-{{00000..00001}}.tar"))
    assert [sample["__key__"] for sample in samples] == world[0].keys("val") and len(samples) == NUM_SAMPLES
    for sample in samples:
        for name in ("tok_rgb", "tok_depth", "tok_clip"):
            assert sample[name].dtype == np.int16 and sample[name].shape == (NUM_CROPS, GRID * GRID)
        assert np.issubdtype(sample["crop_settings"].dtype, np.integer) and sample["crop_settings"].shape == (NUM_CROPS, 5)
        assert sample["rgb"].size == (SIZE, SIZE) and isinstance(sample["caption"], str)
    assert samples[0]["caption"] == world[0].load_column("val", "caption")[0]


def test_tokens_match_crops_made_with_pillow(root):
    """Crop like the reference: cut (left, top, left + w, top + h) of the unflipped center crop, resize, then mirror."""
    for sample in read(f"{root}/[rgb,crop_settings]/shard-00000.tar"):
        settings = sample["crop_settings"]
        assert settings[0].tolist() == [0, 0, SIZE, SIZE, 0]
        for top, left, height, width, flip in settings.tolist():
            cut = sample["rgb"].crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut
            ours = crop_values("rgb", np.asarray(sample["rgb"])[None], np.array([[top, left, height, width, flip]]))[0]
            assert np.abs(np.asarray(cut).astype(int) - ours.astype(int)).max() <= 1


def test_one_crop_of_all_modalities_is_selected_by_index(root, world, tokenizers):
    rgb = world[0].load_column("val", "rgb")
    for number, sample in enumerate(read(f"{root}/[tok_rgb,crop_settings]/shard-00000.tar")):
        for k, crop in enumerate(sample["crop_settings"]):
            expected = tokenizers.tokens("rgb", crop_values("rgb", rgb[number : number + 1], crop[None]))
            assert (sample["tok_rgb"][k] == expected[0]).mean() > 0.9  # sums of another order may turn a tie


def test_members_are_plain_files_that_tarfile_reads(root):
    for name in MODALITIES:
        with tarfile.open(root / name / "shard-00001.tar") as archive:
            members = archive.getmembers()
            assert all(member.isfile() and re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z]+", member.name) for member in members)
            assert len({member.name.partition(".")[2] for member in members}) == 1


def test_killed_pretokenization_resumes_to_equal_bytes(world, tokenizers, tmp_path, monkeypatch):
    from fourfold.tokenizers import pretokenizing

    config, write = CropConfig(num_crops=2, flip_probability=0.5), pretokenizing.write_columns
    unbroken = pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "unbroken"), splits=["train", "val"])
    finished = 0

    def killed_at(limit: int):
        def write_or_die(root, split, name, columns):
            nonlocal finished
            if finished == limit:
                some = dict(list(columns.items())[:3])  # dies in the middle of a shard, with a file half written
                write(root, split, name, some)
                (root / split / "crop_settings" / f".partial-1-{name}").write_bytes(b"half")
                raise KeyboardInterrupt
            finished += 1
            write(root, split, name, columns)

        return write_or_die

    for limit in range(4):
        monkeypatch.setattr(pretokenizing, "write_columns", killed_at(limit))
        with pytest.raises(KeyboardInterrupt):
            pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "killed"), splits=["train", "val"])
        with pytest.raises(ValueError, match=r"Unknown split of .*: 'val'"):
            ShardSet(tmp_path / "killed").modalities("val")
    monkeypatch.setattr(pretokenizing, "write_columns", write)
    kept = {path: path.stat().st_ino for path in (tmp_path / "killed/train").rglob("shard-00000.tar")}
    resumed = pretokenize(*world, tokenizers, config, RunContext(0, tmp_path / "killed"), splits=["train", "val"])
    assert kept and all(path.stat().st_ino == inode for path, inode in kept.items())
    assert resumed.digest() == unbroken.digest()
    files = sorted(path.relative_to(tmp_path / "unbroken") for path in (tmp_path / "unbroken").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*") if path.is_file())
    assert all((tmp_path / "unbroken" / path).read_bytes() == (tmp_path / "killed" / path).read_bytes() for path in files)
