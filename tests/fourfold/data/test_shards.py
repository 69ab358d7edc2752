"""Shards: writing, reading, manifests."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fourfold.data.manifests import finished_manifest
from fourfold.data.resuming import ResumedShards
from fourfold.data.shards import ShardSet, collate, finish_split, shard_name, write_columns, write_shard
from fourfold.digests import record_digests, sha256_file
from fourfold.modalities import ClassTable
from fourfold.seeds import numpy_generator

MODALITIES = ("caption", "rgb", "tok_rgb")


def columns(shard, samples=4):
    rng = numpy_generator(0, "shards", shard)
    keys = [f"train-{shard}-{i}" for i in range(samples)]
    return {
        "caption": [(key, f"caption of {key}") for key in keys],
        "rgb": [(key, rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for key in keys],
        "tok_rgb": [(key, rng.integers(0, 512, (1, 16))) for key in keys],
    }


@pytest.fixture
def shards(tmp_path):
    for index in range(3):
        write_columns(tmp_path, "train", shard_name(index), columns(index))
    finish_split(tmp_path, "train", MODALITIES)
    return ShardSet(tmp_path)


def test_samples_are_read_back_in_order_and_aligned(shards):
    read = list(shards.iterate("train", MODALITIES))
    wanted = [dict(columns(i)[m]) for i in range(3) for m in ("rgb",)]
    assert (
        [sample["__key__"] for sample in read] == shards.keys("train") == [f"train-{s}-{i}" for s in range(3) for i in range(4)]
    )
    for sample in read:
        shard = int(sample["__key__"].split("-")[1])
        assert np.array_equal(sample["rgb"], wanted[shard][sample["__key__"]])
        assert sample["caption"] == f"caption of {sample['__key__']}"
    assert (shards.splits(), shards.modalities("train"), shards.num_samples("train")) == (["train"], list(MODALITIES), 12)


def test_tarfile_reads_the_same_members(shards):
    path = shards.root / "train" / "rgb" / "shard-00001.tar"
    with tarfile.open(path) as archive:
        members = [(m.name, archive.extractfile(m).read(), m.mtime, m.uid, m.isreg()) for m in archive]
    assert [
        (f"{key}.png", content, 0, 0, True) for key, content in shards.read_bytes("train", "rgb", "shard-00001.tar")
    ] == members


def test_written_bytes_are_those_of_tarfile(shards, tmp_path):
    path = shards.root / "train" / "caption" / "shard-00002.tar"
    with tarfile.open(tmp_path / "other.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for key, caption in columns(2)["caption"]:
            member = tarfile.TarInfo(f"{key}.txt")
            member.size = len(caption)
            archive.addfile(member, io.BytesIO(caption.encode()))
    assert path.read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_manifest_holds_hash_size_and_keys_of_each_shard(shards):
    for info in shards.manifest("train", "caption").shards:
        path = shards.root / "train" / "caption" / info.name
        assert (info.sha256, info.bytes, info.samples) == (sha256_file(path), path.stat().st_size, 4)
        assert info.facts.sha256 == sha256_file(path.with_name(info.facts.name))
        keys = [key for key, _ in shards.read_bytes("train", "caption", info.name)]
        assert info.keys_sha256 == hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest()


def test_equal_samples_give_equal_bytes_and_digest(tmp_path):
    digests = []
    for root, changed in ((tmp_path / "a", False), (tmp_path / "b", False), (tmp_path / "c", True)):
        content = columns(0)
        if changed:
            content["caption"][-1] = (content["caption"][-1][0], "another")
        write_columns(root, "train", shard_name(0), content)
        finish_split(root, "train", MODALITIES)
        digests.append(ShardSet(root).digest())
    assert digests[0] == digests[1] != digests[2]


def test_batches_cross_shards_and_stack_equal_shapes(shards):
    batches = list(shards.batches("train", MODALITIES, 5))
    assert [len(batch["__key__"]) for batch in batches] == [5, 5, 2]
    assert batches[0]["rgb"].shape == (5, 8, 8, 3) and isinstance(batches[0]["caption"], list)
    assert shards.load_column("train", "tok_rgb").shape == (12, 1, 16)
    assert isinstance(collate([{"rgb": np.zeros((2, 2))}, {"rgb": np.zeros((3, 2))}])["rgb"], list)


def test_existing_shards_are_kept_when_work_resumes(tmp_path):
    write_shard(tmp_path / "train" / "rgb" / shard_name(0), columns(0)["rgb"], "rgb")
    assert ResumedShards(tmp_path, MODALITIES).missing("train", shard_name(0)) == ["caption", "tok_rgb"]
    before = (tmp_path / "train" / "rgb" / shard_name(0)).stat().st_mtime_ns
    write_columns(tmp_path, "train", shard_name(0), columns(0))
    assert (tmp_path / "train" / "rgb" / shard_name(0)).stat().st_mtime_ns == before


def test_work_that_resumes_reads_each_manifest_once(shards, monkeypatch):
    read = []
    monkeypatch.setattr("fourfold.data.resuming.finished_manifest", lambda *at: read.append(at) or finished_manifest(*at))
    resumed = ResumedShards(shards.root, MODALITIES)
    assert [resumed.missing("train", shard_name(index)) for index in range(4)] == [[], [], [], list(MODALITIES)]
    assert read == [(shards.root, "train", modality) for modality in MODALITIES]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_shard_is_an_error_that_names_it(shards, damage):
    path = shards.root / "train" / "rgb" / "shard-00001.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(content if damage == "flip" else content[:3000])
    for action in (shards.verify, lambda: list(shards.iterate("train", ["rgb"]))):
        with pytest.raises(ValueError, match=r"rgb/shard-00001.tar .*(damaged|cannot be read)"):
            action()


def test_manifest_that_was_never_recorded_is_not_called_changed(shards):
    (shards.root / "digests.json").unlink()
    with pytest.raises(ValueError, match=r"manifest.json has no digest in digests.json, so it cannot be checked. Make"):
        ShardSet(shards.root).num_samples("train")


def _made_again(root: Path) -> None:
    """Do what a stage does that resumes."""
    resumed = ResumedShards(root, MODALITIES)
    for index in range(3):
        if resumed.missing("train", shard_name(index)):
            write_columns(root, "train", shard_name(index), columns(index))
    finish_split(root, "train", MODALITIES)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _swap(path: Path, other: Path) -> None:
    content, other_content = path.read_bytes(), other.read_bytes()
    path.write_bytes(other_content)
    other.write_bytes(content)


DAMAGES = {
    "shard flipped": lambda train: _flip(train / "caption/shard-00001.tar"),
    "shard gone": lambda train: (train / "tok_rgb/shard-00002.tar").unlink(),
    "facts gone": lambda train: (train / "tok_rgb/shard-00002.facts.parquet").unlink(),
    "facts flipped": lambda train: _flip(train / "tok_rgb/shard-00002.facts.parquet"),
    "shards swapped": lambda train: _swap(train / "rgb/shard-00000.tar", train / "rgb/shard-00001.tar"),
    "manifest flipped": lambda train: _flip(train / "rgb/manifest.json"),
    "manifest gone": lambda train: (train / "caption/manifest.json").unlink(),
    "manifests swapped": lambda train: _swap(train / "rgb/manifest.json", train / "tok_rgb/manifest.json"),
    "record gone": lambda train: (train.parent / "digests.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_a_finished_set_is_refused_by_readers_and_made_again_by_its_stage(shards, damage, caplog):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in shards.root.rglob("*") if path.is_file()}

    before = files()
    DAMAGES[damage](shards.root / "train")
    with pytest.raises(ValueError, match=r"shard-0000|manifest\.json"):
        ShardSet(shards.root).verify()
    if "shard" not in damage and "facts" not in damage:  # stages open a set by its digest, which does not read the shards
        with pytest.raises(ValueError, match=r"([0-9a-f]{64}|has no digest).*kedro run"):
            ShardSet(shards.root).digest()
    _made_again(shards.root)
    assert files() == before
    assert damage == "record gone" or "facts" in damage or 1 <= caplog.text.count("again.") <= 2
    ShardSet(shards.root).verify()


def test_modalities_that_are_not_aligned_are_refused(tmp_path):
    content = columns(0)
    content["rgb"] = content["rgb"][::-1]
    write_columns(tmp_path, "train", shard_name(0), content)
    with pytest.raises(ValueError, match=r"rgb, shard-00000.tar: not aligned .* sample 0 is 'train-0-3', not 'train-0-0'"):
        finish_split(tmp_path, "train", MODALITIES)


def test_derived_split_must_have_the_shards_and_keys_of_its_origin(shards, tmp_path):
    root = tmp_path / "labels"
    for index in range(2):
        write_columns(root, "train", shard_name(index), {"rgb": columns(index)["rgb"]})
    with pytest.raises(ValueError, match=r"does not have the same shards .* shard-00002.tar"):
        finish_split(root, "train", ["rgb"], like=shards)


def test_undecodable_member_is_named_by_shard_and_key(shards):
    folder = shards.root / "train" / "rgb"
    (shards.root / "train" / "caption" / "shard-00000.tar").replace(folder / "shard-00000.tar")
    with pytest.raises(ValueError, match="damaged"):
        shards.read("train", ["rgb"], "shard-00000.tar")
    with pytest.raises(ValueError, match=r"rgb/shard-00000.tar, sample 'train-0-0': These .* are not a 'rgb'"):
        finish_split(shards.root, "train", ["rgb"])


@pytest.mark.parametrize("key", ["../../x", "a.b", "", "x" * 91, "a b", "ü"])
def test_unsafe_keys_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="is not allowed; use 1 to 90 of the characters"):
        write_shard(tmp_path / "s.tar", [(key, "text")], "caption")
    assert list(tmp_path.iterdir()) == []


def test_repeated_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'a' is repeated in .*s\.tar; keys must be unique"):
        write_shard(tmp_path / "s.tar", [("a", "x"), ("a", "y")], "caption")


def test_unknown_split_or_modality_is_an_error_with_the_known_ones(shards):
    with pytest.raises(ValueError, match=r"Unknown split of .*: 'tset'\. Known: train"):
        shards.keys("tset")
    with pytest.raises(ValueError, match=r"Unknown modality of .*train: 'depth'\. Known: caption, rgb, tok_rgb"):
        shards.manifest("train", "depth")


def test_manifest_of_another_schema_is_refused(shards):
    path = shards.root / "train" / "rgb" / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    record_digests(shards.root, "train/rgb/manifest.json")
    with pytest.raises(ValueError, match="schema version 99; allowed: 2"):
        shards.manifest("train", "rgb")


def test_manifest_carries_the_class_table_of_class_ids(tmp_path):
    table = ClassTable(names=("sky", "road"), background=(0,))
    ids = [(f"k{i}", np.full((4, 4), i % 2, np.uint8)) for i in range(4)]
    write_columns(tmp_path, "val", shard_name(0), {"semseg": ids})
    finish_split(tmp_path, "val", ["semseg"])
    without, digest = ShardSet(tmp_path), ShardSet(tmp_path).digest()
    assert "class_table" not in (tmp_path / "val/semseg/manifest.json").read_text()
    with pytest.raises(ValueError, match=r"val/semseg/manifest.json has no class table. The labeler or source"):
        without.class_table("val")

    finish_split(tmp_path, "val", ["semseg"], class_tables={"semseg": table})
    assert ShardSet(tmp_path).class_table("val") == table
    assert ShardSet(tmp_path).digest() != digest
