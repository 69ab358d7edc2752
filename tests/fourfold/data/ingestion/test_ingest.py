"""Ingestion end to end: splits, truth, losses, resuming, errors of the file system."""

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from fourfold.data.captions import captions_of
from fourfold.data.ingestion import staging
from fourfold.data.ingestion.card import data_card
from fourfold.data.ingestion.drops import Tally, describe_losses, loss_metrics
from fourfold.data.ingestion.drops import losses as losses_of
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report, open_truth
from fourfold.data.ingestion.sources import SampleStream
from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.ingestion.sources.folder import FolderConfig
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig
from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.digests import write_recorded
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
    defaults["cleaning"] = CleaningConfig(min_side=16)
    return IngestionConfig(source=source, image_size=16, **(defaults | options))


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
        assert truth.alignment(split).keys_sha256 == shards.alignment(split).keys_sha256
        assert truth.keys(split) == shards.keys(split)
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


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("my notes")], ids=["lost", "edited"])
def test_card_beside_the_shards_that_is_harmed_costs_no_shard(tmp_path, harm):
    """Kedro writes and records the card after ingestion has returned, and may be killed between the two."""
    ingest(SCENES, 0, tmp_path)
    write_recorded(tmp_path, "data_card.md", b"# Card")
    harm(tmp_path / "data_card.md")
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.tar")}
    ingest(SCENES, 0, tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*.tar")} == before
    assert ingestion_report(tmp_path)["kept"]["train"] == 12


@pytest.mark.parametrize("harm", [None, b"{", b'{"fingerprint": "other"}'])
@pytest.mark.parametrize("name", ["shards/fingerprint.json", "truth/val/fingerprint.json"])
def test_a_fingerprint_of_a_finished_ingestion_is_written_again(tmp_path, name, harm):
    ingest(SCENES, 0, tmp_path)
    before = bytes_under(tmp_path)
    (tmp_path / name).unlink() if harm is None else (tmp_path / name).write_bytes(harm)
    ingest(SCENES, 0, tmp_path)
    assert bytes_under(tmp_path) == before


def test_lost_or_changed_report_is_an_error_that_names_it(tmp_path):
    ingest(SCENES, 0, tmp_path)
    report = tmp_path / "ingestion_report.json"
    report.write_text(report.read_text().replace("12", "13"))
    with pytest.raises(ValueError, match=r"ingestion_report.json changed after it was written.*Ingest again with"):
        ingestion_report(tmp_path)
    report.unlink()
    with pytest.raises(ValueError, match=r"ingestion_report.json is missing \(expected SHA-256 .*Ingest again with"):
        ingestion_report(tmp_path)


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
    report = ingestion_report(tmp_path / "out")
    kept = sum(report["kept"].values())
    block = caplog.messages[-1].split("\n")
    splits = ", ".join(f"{split} {shards.num_samples(split)}" for split in shards.splits())
    assert block[0] == f"Ingestion kept {kept} of {report['seen']} samples ({splits})."
    assert block[1] == "  source: 2 files left out: member has an unsafe name, e.g. ../../x.png"
    assert "  source: 1 sample left out: duplicate image, e.g. copy" in block
    assert "  source: 1 archive left out: archive cut off, e.g. 2.tar" in block
    assert block[-1] == f"All counts: {tmp_path / 'out' / 'ingestion_report.json'}."
    card, losses = data_card(settings(tmp_path / "in"), report), losses_of(report)
    assert all(f"| source | {loss.amount} | {loss.reason} | {', '.join(loss.examples)} |" in card for loss in losses)
    assert len(losses) > 8 and f"{kept} of {report['seen']} samples were kept." in card
    metrics = loss_metrics(report)
    assert metrics["samples_kept"] == kept and metrics["samples_seen"] == report["seen"]
    assert metrics["left_out/samples"] == sum(report["dropped"].values()) and metrics["left_out/archives"] == 1
    assert metrics["left_out/samples/image unreadable"] == 2
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
    assert report["by_source"]["source"]["examples"]["sample"]["duplicate image"] == ["copy"]
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(("x.", "pwned"))] and not Path("pwned").exists()


def test_archives_that_count_from_0_each_are_all_kept(tmp_path):
    def crawl(start):
        return [
            (f"{n % 20:05d}.{e}", c) for n in range(start, start + 20) for e, c in (("png", image_bytes(n)), ("txt", b"a dog"))
        ]

    for name, start in (("a", 0), ("b", 20)):
        write_tar(tmp_path / "in" / name / "0.tar", crawl(start))
    write_tar(tmp_path / "in" / "c" / "0.tar", [*crawl(0)[:2], *crawl(50)[:2], *crawl(51)[:2], *crawl(71)[:2]])
    shards = ingest(settings(tmp_path / "in"), 0, tmp_path / "out")
    keys = [key for split in shards.splits() for key in shards.keys(split)]
    assert len(keys) == len(set(keys)) == 42 and {f"{n:05d}" for n in range(20)} < set(keys)
    report = ingestion_report(tmp_path / "out")
    assert report["dropped"] == {"duplicate key": 2}  # the same image again, and a key twice in one archive


def test_losses_in_the_log_are_bounded_and_told_again_by_a_run_that_reuses_them(tmp_path, caplog):
    source = write_folder(tmp_path / "in", range(60))
    for number in range(30):
        (source / f"x{number:02d}.png").write_bytes(image_bytes(100 + number))
        (source / f"x{number:02d}.txt").write_text("a caption")
    reasons = [f"reason {number:02d}" for number in range(30)]
    report = {
        "kept": {"train": 60}, "seen": 90,
        "by_source": {
            "source": {"samples_dropped": dict.fromkeys(reasons, 1), "examples": {"sample": {one: ["x"] for one in reasons}}}
        },
    }  # fmt: skip
    lines = describe_losses(report).split("\n")
    assert len(lines) == 22 and lines[-1] == "  and 10 more reasons"
    card = data_card(settings(source, "folder"), report)
    assert card.count("| source |") == 20 and "\n\nAnd 10 more reasons.\n" in card
    hostile = report["by_source"]["source"]["examples"]["sample"]["reason 00"]
    hostile[:] = ["a|b<img src=x>.png"]
    assert "| a\\|b&lt;img src=x>.png |" in data_card(settings(source, "folder"), report)
    (source / "phone.heic").write_bytes(b"x")
    with caplog.at_level("INFO"):
        ingest(settings(source, "folder"), 0, tmp_path / "out")
        first = caplog.messages[-1]
        ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert "  source: 1 sample left out: image format .heic is not read, e.g. phone.heic" in first
    assert caplog.messages[-1] == first


def test_an_example_of_a_loss_is_of_its_unit():
    tally = Tally()
    tally.drop("a.txt", "link leads nowhere", "member")
    tally.drop("b", "link leads nowhere", "folder")
    assert tally.examples == {"member": {"link leads nowhere": ["a.txt"]}, "folder": {"link leads nowhere": ["b"]}}


def test_many_reasons_are_counted_under_one_name():
    tally = Tally()
    for number in range(1_000):
        tally.drop("x", f"reason {number}")
    assert tally.seen == 1_000 and len(tally.reasons["sample"]) == 101 and tally.reasons["sample"]["other reasons"] == 900


def test_table_that_matches_no_image_is_named_in_the_error(tmp_path):
    source = write_folder(tmp_path / "in", range(3))
    for path in source.glob("*.txt"):
        path.unlink()
    (source / "captions.csv").write_text("file,caption\n" + "".join(f"other{n}.jpg,a dog\n" for n in range(3)))
    with pytest.raises(ValueError, match=r"3 × row of a caption table .* name, e.g. other0.jpg; 3 × no caption, e.g. photo"):
        ingest(settings(source, "folder"), 0, tmp_path / "out")


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
    with pytest.raises(ValueError, match=r"0 of 0 samples .* 1 × member of a kind that is not read, e.g. x.pkl"):
        ingest(settings(tmp_path / "none"), 0, tmp_path / "out")
    write_tar(tmp_path / "empty" / "0.tar", [])
    with pytest.raises(ValueError, match=r"0 of 0 samples .* it is empty"):
        ingest(settings(tmp_path / "empty"), 0, tmp_path / "out")
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


def test_interrupted_ingestion_starts_again_if_a_file_was_touched(tmp_path, monkeypatch, caplog):
    """A tar is padded to 10 kB, so another tar often has the same size."""
    tar, config = write_tar(tmp_path / "in" / "0.tar", members_of(range(40))), settings(tmp_path / "in")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fourfold.data.ingestion.ingest.finish_split", _interrupt)
        ingest(config, 0, tmp_path / "out")
    assert list((tmp_path / "out" / "shards").glob("train/*/*.tar"))
    size = tar.stat().st_size
    write_tar(tar, [(name.replace("photo", "other"), content) for name, content in members_of(range(40, 80))])
    assert tar.stat().st_size == size
    os.utime(tar, (1_600_000_000, 1_600_000_000))
    ingest(config, 0, tmp_path / "out")
    assert "modified since the interrupted ingestion. Ingesting again." in caplog.text
    ingest(config, 0, tmp_path / "fresh")
    assert ShardSet(tmp_path / "out" / "shards").digest() == ShardSet(tmp_path / "fresh" / "shards").digest()


def test_the_number_of_processes_changes_no_byte(tmp_path):
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", members_of(range(12 * number, 12 * number + 12)))
    config = settings(tmp_path / "in", supplement=SCENES.source)
    threads = torch.get_num_threads()
    for num_processes in (1, 3):
        torch.set_num_threads(num_processes)
        try:
            ingest(config, 0, tmp_path / f"out{num_processes}")
        finally:
            torch.set_num_threads(threads)
    assert bytes_under(tmp_path / "out1") == bytes_under(tmp_path / "out3")


def test_shares_of_the_work_leave_the_bytes_of_one_process_and_nothing_to_clean(tmp_path, monkeypatch):
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", members_of(range(12 * number, 12 * number + 12)))
    config = settings(tmp_path / "in", supplement=SCENES.source)
    ingest(config, 0, tmp_path / "whole")
    for index in (2, 0, 1):
        ingest(config, 0, tmp_path / "shared", WorkSplit(index, 3))
        assert not list((tmp_path / "shared").rglob("manifest.json"))
    with monkeypatch.context() as patch:
        patch.setattr(staging, "_write_chunk", _interrupt)
        ingest(config, 0, tmp_path / "shared")
    assert bytes_under(tmp_path / "shared") == bytes_under(tmp_path / "whole")
    ingest(config, 0, tmp_path / "shared", WorkSplit(0, 3))  # a pod that starts again after all is done
    assert bytes_under(tmp_path / "shared") == bytes_under(tmp_path / "whole")


@pytest.mark.parametrize("name", ["chunk-00001.tar", "chunk-00000.tar", "chunk-00001.json", "slice.json"])
def test_staged_chunks_that_changed_after_an_interruption_are_cleaned_again(tmp_path, monkeypatch, caplog, name):
    write_tar(tmp_path / "in" / "0.tar", members_of(range(40)))
    config = settings(tmp_path / "in", samples_per_shard=16)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fourfold.data.ingestion.ingest.finish_split", _interrupt)
        ingest(config, 0, tmp_path / "out")
    (staged,) = (tmp_path / "out").rglob(name)
    content = bytearray(staged.read_bytes())
    content[600 if name.endswith(".tar") else -9] ^= 1  # in the content of the first member
    staged.write_bytes(content)
    ingest(config, 0, tmp_path / "out")
    assert caplog.text.count(f"{name} changed after it was written") == caplog.text.count("Cleaning it again.") == 1
    ingest(config, 0, tmp_path / "fresh")
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "fresh")


def test_shards_of_an_earlier_source_come_back_as_they_were(tmp_path):
    """A folder and tars are both called `source` in the report; each has its own record of files."""
    folder = settings(write_folder(tmp_path / "folder", range(60)), "folder")
    write_tar(tmp_path / "tars" / "0.tar", members_of(range(100, 160)))
    ingest(folder, 0, tmp_path / "out")
    first = {path: path.stat().st_ino for path in (tmp_path / "out" / "shards").rglob("*.tar")}
    ingest(settings(tmp_path / "tars"), 0, tmp_path / "out")
    assert {path: path.stat().st_ino for path in (tmp_path / "out" / "shards").rglob("*.tar")} != first
    ingest(folder, 0, tmp_path / "out")
    assert {path: path.stat().st_ino for path in (tmp_path / "out" / "shards").rglob("*.tar")} == first


def test_versions_of_the_newest_works_are_kept(tmp_path):
    from fourfold.data.ingestion.touched import KEPT, resume_untouched

    stream, cleared = SampleStream("source", "here", [], "digest", version="1"), []
    for number in range(KEPT + 2):
        resume_untouched([stream], f"{number:02d}", tmp_path, lambda number=number: cleared.append(number))
    assert len(list(tmp_path.iterdir())) == KEPT and cleared == list(range(KEPT + 2))
    resume_untouched([stream], "03", tmp_path, lambda: cleared.append("again"))
    assert cleared[-1] != "again"
    for damage in ("", "[]", "{", '{"made_from": 1}'):
        (tmp_path / "versions-03.json").write_text(damage)
        resume_untouched([stream], "03", tmp_path, lambda damage=damage: cleared.append(damage))
        assert cleared[-1] == damage


def _interrupt(*arguments, **settings):
    raise KeyboardInterrupt


def test_added_image_is_ingested_and_a_touched_one_is_named(tmp_path, caplog):
    source = write_folder(tmp_path / "in", range(60))
    shards = ingest(settings(source, "folder"), 0, tmp_path / "out")
    before = shards.digest()
    os.utime(source / "photo00000.png", (1_600_000_000, 1_600_000_000))
    ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert "Files of stream 'source' were modified" in caplog.text and shards.digest() == before
    caplog.clear()
    ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # once for each change
    os.utime(source / "photo00000.png", (1_600_000_009, 1_600_000_009))
    ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert caplog.text.count("were modified since") == 1
    (tmp_path / "out" / "ingestion_report.json").unlink()  # shards of the files as they were do not count for those of now
    written = {path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").rglob("*.tar")}
    ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert "modified since the interrupted ingestion. Ingesting again." in caplog.text
    assert not written & {path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").rglob("*.tar")}
    write_folder(source, [99])
    ingest(settings(source, "folder"), 0, tmp_path / "out")
    assert shards.digest() != before and sum(ingestion_report(tmp_path / "out")["kept"].values()) == 61


def test_several_captions_of_an_image_are_stored_in_order_and_losses_among_them_are_counted(tmp_path):
    source, names = tmp_path / "in", [f"p{number:02d}.png" for number in range(60)]
    source.mkdir()
    for number, name in enumerate(names):
        (source / name).write_bytes(image_bytes(number))
    takes = ["  ", "take one", "take  one", "take two", "x" * 2000, "take three"]
    rows = "".join(f"{name},{take} {name}\n" if take.strip() else f"{name},\n" for name in names[1:] for take in takes)
    (source / "captions.csv").write_text(f"file,caption\n{names[0]},alone\n" + rows)
    config = settings(source, "folder", cleaning=CleaningConfig(min_side=16, max_captions=2))
    shards = ingest(config, 0, tmp_path / "out")
    found = {s["__key__"]: captions_of(s["caption"]) for split in shards.splits() for s in shards.iterate(split, ["caption"])}
    assert found[safe_key(names[0])] == ("alone",)
    assert all(found[safe_key(name)] == (f"take one {name}", f"take two {name}") for name in names[1:])
    source_report = ingestion_report(tmp_path / "out")["by_source"]["source"]
    lost = {"caption empty": 59, "caption too long": 59, "image has more than 2 captions": 59}
    assert source_report["captions_dropped"] == lost and source_report["kept"] == 60
    manifests = [shards.manifest(split, "caption") for split in shards.splits()]
    assert {manifest.max_captions for manifest in manifests} == {2}
    shards.verify()
