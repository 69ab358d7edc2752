"""Ingestion end to end: splits, truth, losses, resuming, errors of the file system."""

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fourfold.data.ingestion.cleaning import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report, open_truth
from fourfold.data.ingestion.sources.folder import FolderConfig
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig
from fourfold.data.shards import ShardSet
from fourfold.plugins import load_plugins
from fourfold.scenes.world import TRUTH, ScenesConfig
from tests.fourfold.data.crawls import image_bytes, members_of, write_folder, write_tar

load_plugins(["fourfold.scenes"])
SCENES = IngestionConfig(
    source=ScenesConfig(image_size=16, num_samples={"annotated": 5, "train": 12, "val": 4, "test": 3}, images_per_shard=5),
    cleaning=CleaningConfig(min_side=16),
    image_size=16,
    samples_per_shard=4,
)


def settings(path, kind="webdataset", **options):
    defaults = {"samples_per_shard": 8, "max_drop_share": 0.5, "val_share": 0.2, "test_share": 0.2}
    source = {"webdataset": WebdatasetConfig, "folder": FolderConfig}[kind](path=str(path))
    return IngestionConfig(source=source, cleaning=CleaningConfig(min_side=16), image_size=16, **(defaults | options))


def bytes_under(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_scenes_are_ingested_and_their_truth_is_aligned(tmp_path):
    shards = ingest(SCENES, 0, tmp_path)
    truth = open_truth(tmp_path)
    assert {split: shards.num_samples(split) for split in shards.splits()} == SCENES.source.num_samples
    assert truth.splits() == ["annotated", "test", "val"] and truth.modalities("val") == sorted(TRUTH)
    for split in truth.splits():
        assert truth.keys_by_shard(split) == shards.keys_by_shard(split)
    sample = next(shards.iterate("val", ["rgb", "caption"]))
    assert sample["__key__"] == "val-000000" and sample["rgb"].shape == (16, 16, 3) and len(sample["caption"].split()) > 2
    shards.verify()


def test_equal_seeds_give_equal_bytes(tmp_path):
    digests = [ingest(SCENES, seed, tmp_path / name).digest() for seed, name in ((0, "a"), (0, "b"), (1, "c"))]
    assert digests[0] == digests[1] != digests[2]
    assert bytes_under(tmp_path / "a") == bytes_under(tmp_path / "b")


@pytest.mark.parametrize("damaged", ["shards/train/rgb/shard-00001.tar", "truth/val/depth/shard-00000.tar"])
def test_finished_ingestion_is_repeated_only_for_damaged_shards(tmp_path, damaged):
    digest = ingest(SCENES, 0, tmp_path).digest()
    path = tmp_path / damaged
    before = path.stat().st_mtime_ns
    ingest(SCENES, 0, tmp_path)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:900])
    shards = ingest(SCENES, 0, tmp_path)
    shards.verify()
    open_truth(tmp_path).verify()
    assert shards.digest() == digest


def test_splits_of_earlier_settings_are_removed(tmp_path):
    ingest(SCENES, 0, tmp_path)
    fewer = {k: v for k, v in SCENES.source.num_samples.items() if k != "annotated"}
    ingest(SCENES.model_copy(update={"source": SCENES.source.model_copy(update={"num_samples": fewer})}), 0, tmp_path)
    names = [name for name in bytes_under(tmp_path) if ".superseded" not in name]
    assert names and not [name for name in names if "annotated" in name]


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_source_without_splits_is_split_by_key_and_has_no_truth(tmp_path, kind):
    if kind == "folder":
        write_folder(tmp_path / "source", range(60))
    else:
        write_tar(tmp_path / "source" / "0.tar", members_of(range(60)))
    shards = ingest(settings(tmp_path / "source", kind, supplement=SCENES.source), 0, tmp_path / "out")
    assert shards.splits() == ["annotated", "test", "train", "val"] and open_truth(tmp_path / "out").splits() == ["annotated"]
    assert sum(shards.num_samples(split) for split in ("train", "val", "test")) == 60
    assert len({key for split in shards.splits() for key in shards.keys(split)}) == 65
    again = ingest(settings(tmp_path / "source", kind, supplement=SCENES.source), 1, tmp_path / "other seed")
    assert shards.keys("val") == again.keys("val")


def test_bad_inputs_are_dropped_and_counted_by_reason(tmp_path, caplog):
    good = members_of(range(40))
    bad = [
        *members_of([3]),  # duplicate key
        ("copy.png", image_bytes(4)), ("copy.txt", b"the same image again"),
        ("cut.png", image_bytes(90)[:60]), ("cut.txt", b"an image cut off"),
        ("html.jpg", b"<html>"), ("html.txt", b"not an image"),
        ("empty.png", image_bytes(91)), ("empty.txt", b""),
        ("long.png", image_bytes(92)), ("long.txt", b"x" * 10_000),
        ("latin.png", image_bytes(93)), ("latin.txt", b"caf\xe9 au lait"),
        ("small.png", image_bytes(94, side=8)), ("small.txt", b"a tiny one"),
        ("../../x.png", image_bytes(95)), ("../../x.txt", b"escapes"),
        ("photo00001.pkl", b"cos\nsystem\n(S'touch pwned'\ntR."),
        ("alone.txt", b"no image here"),
    ]  # fmt: skip
    write_tar(tmp_path / "in" / "0.tar", good)
    write_tar(tmp_path / "in" / "1.tar", bad)
    whole = write_tar(tmp_path / "in" / "2.tar", members_of(range(50, 60))).read_bytes()
    (tmp_path / "in" / "2.tar").write_bytes(whole[: len(whole) // 3])
    with caplog.at_level("INFO"):
        shards = ingest(settings(tmp_path / "in"), 0, tmp_path / "out")
    assert "1 × duplicate key, e.g. photo00003; 1 × duplicate image, e.g. copy" in caplog.text
    report = ingestion_report(tmp_path / "out")
    assert report["dropped"] == {
        "duplicate key": 1,
        "duplicate image": 1,
        "image unreadable": 2,
        "caption empty": 1,
        "caption too long": 1,
        "caption is not UTF-8": 1,
        "image too small": 1,
        "no image": 1,
    } | {reason: count for reason, count in report["dropped"].items() if reason == "no caption"}  # where the cut fell
    assert report["members_ignored"] == {"member has an unsafe name": 2, "member of a kind that is not read": 1}
    assert report["archives_damaged"] == 1
    kept = sum(report["kept"].values())
    assert report["seen"] == kept + sum(report["dropped"].values()) and 40 <= kept < 50
    assert kept == sum(shards.num_samples(split) for split in shards.splits())
    assert report["by_source"]["source"]["examples"]["duplicate image"] == ["copy"]
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(("x.", "pwned"))] and not Path("pwned").exists()


def test_too_many_drops_are_an_error_with_counts_and_examples(tmp_path):
    bad = [member for n in range(10) for member in ((f"bad{n}.png", b"no"), (f"bad{n}.txt", b"caption"))]
    write_tar(tmp_path / "in" / "0.tar", [*members_of(range(10)), *bad])
    with pytest.raises(
        ValueError, match=r"10 of 20 samples of .* \(50%, allowed 20%\): 10 × image unreadable, e.g. bad0. .*max_drop"
    ):
        ingest(settings(tmp_path / "in", max_drop_share=0.2), 0, tmp_path / "out")
    assert ShardSet(tmp_path / "out" / "shards").splits() == []


def test_too_many_damaged_archives_are_an_error(tmp_path):
    for n in range(2):
        path = write_tar(tmp_path / "in" / f"{n}.tar", members_of(range(20 * n, 20 * n + 20)))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"1 of 2 archives of .* damaged .*1\.tar"):
        ingest(settings(tmp_path / "in", max_drop_share=0.3), 0, tmp_path / "out")


def test_source_with_too_few_samples_is_an_error(tmp_path):
    write_tar(tmp_path / "none" / "0.tar", [("x.pkl", b"")])
    with pytest.raises(ValueError, match=r"0 of 0 samples .* it is empty"):
        ingest(settings(tmp_path / "none"), 0, tmp_path / "out")
    write_tar(tmp_path / "few" / "0.tar", members_of([1]))
    with pytest.raises(ValueError, match=r"No sample fell into .* Give more images"):
        ingest(settings(tmp_path / "few"), 0, tmp_path / "out")


def test_source_inside_the_output_folder_is_refused(tmp_path):
    write_folder(tmp_path / "photos", range(3))
    with pytest.raises(ValueError, match="Keep the source elsewhere"):
        ingest(settings(tmp_path / "photos", "folder"), 0, tmp_path)
    assert len(list((tmp_path / "photos").iterdir())) == 6


def test_supplement_with_the_splits_of_the_source_is_refused(tmp_path):
    config = settings(write_folder(tmp_path / "in", range(3)), "folder")
    with pytest.raises(
        ValueError, match=r"ingestion.supplement \(kind 'folder'\) provides test, train, val, which ingestion.source"
    ):
        ingest(config.model_copy(update={"supplement": config.source}), 0, tmp_path / "out")


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match=r"source.image_size \(64\) must equal image_size \(32\)"):
        IngestionConfig(source={"kind": "scenes"}, image_size=32)
    with pytest.raises(ValueError, match=r"cleaning.min_side \(65\) would drop every image of 64 pixels"):
        IngestionConfig(source={"kind": "scenes"}, cleaning=CleaningConfig(min_side=65))


def run_script(script, *arguments):
    """Run a function of hardship.py in a separate process; returns the lines of its standard output."""
    command = [sys.executable, str(Path(__file__).with_name("hardship.py")), script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_killed_runs_resume_and_give_the_same_bytes(tmp_path):
    write_tar(
        tmp_path / "in" / "0.tar", [*members_of(range(40)), ("copy.png", image_bytes(4)), ("copy.txt", b"the same again")]
    )
    config = settings(tmp_path / "in", supplement=SCENES.source, samples_per_shard=16)
    lines = run_script("kill", config.model_dump_json(), tmp_path / "killed", tmp_path / "unbroken")
    assert lines.count("killed") > 8 and lines[0] == lines[-2] == "finished"
    assert bytes_under(tmp_path / "killed") == bytes_under(tmp_path / "unbroken")


def test_full_disk_is_one_error_and_the_next_run_continues(tmp_path):
    config = settings(write_folder(tmp_path / "in", range(40)), "folder")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))  # larger files cannot be written, as on a full disk
    try:
        with pytest.raises(ValueError, match=r"Ingestion cannot work on .* Free some space; the next run continues"):
            ingest(config, 0, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ShardSet(tmp_path / "out" / "shards").splits() == []
    ingest(config, 0, tmp_path / "out")
    ingest(config, 0, tmp_path / "unbroken")
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "unbroken")


def test_full_tmpfs_is_the_same_error(tmp_path):
    config = settings(write_folder(tmp_path / "in", range(40)), "folder")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            f"a tmpfs cannot be mounted here ({mounted.stderr.strip()}); the test above fills the disk by a limit instead"
        )
    try:
        with pytest.raises(ValueError, match=r"No space left on device. Free some space; the next run continues"):
            ingest(config, 0, small / "out")
    finally:
        subprocess.run(["umount", small], check=True)


def test_folder_without_write_permission_is_one_error():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = settings(write_folder(folder / "in", range(20)), "folder")
        (folder / "out").mkdir()
        for path in (folder / "out", folder):
            path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere; nobody may not
        try:
            with pytest.raises(ValueError, match=r"Permission denied. Give this user access to it, or another folder"):
                ingest(config, 0, folder / "out")
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
            (folder / "out").chmod(0o755)


def test_target_that_is_a_file_is_one_error(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(ValueError, match=r"Ingestion cannot work on .*out"):
        ingest(settings(write_folder(tmp_path / "in", range(20)), "folder"), 0, tmp_path / "out")


@pytest.mark.parametrize("counts", [(500, 2_000), pytest.param((1_000, 10_000), marks=pytest.mark.slow)])
def test_memory_is_independent_of_the_number_of_samples(tmp_path, counts):
    for count in counts:
        write_tar(tmp_path / str(count) / "0.tar", members_of(range(count)))
    configs = [settings(tmp_path / str(count), samples_per_shard=100).model_dump_json() for count in counts]
    small, large = map(int, run_script("memory", *configs, tmp_path)[:2])  # kB, peak memory of the process
    assert large - small < 16_000, f"{small} kB at {counts[0]} samples, {large} kB at {counts[1]}"
