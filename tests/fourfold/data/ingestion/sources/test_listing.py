"""Links in sources, folders that cannot be read, and names that are not UTF-8."""

import json
import os
import re
from pathlib import Path

import fsspec
import pytest

from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources import SourceContext
from fourfold.data.ingestion.sources.files import printable
from fourfold.data.ingestion.sources.folder import FolderConfig
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig, WebdatasetSource
from tests.fourfold.data.crawls import drops, image_bytes, members_of, read_source, samples, write_folder, write_tar

OUT = "link leads out of the source (follow_links: false)"
TWICE = "linked folder was read already, under another name"


def read(path, kind="folder", **options):
    return read_source({"kind": kind, "path": str(path), **options})


def test_links_never_lead_out_of_a_source(tmp_path):
    source, secret = write_folder(tmp_path / "source", [1]), tmp_path / "secret"
    write_folder(secret, [2])
    (source / "image.png").symlink_to(secret / "photo00002.png")
    (source / "image.txt").symlink_to("/etc/passwd")
    (source / "other.png").write_bytes(image_bytes(3))
    (source / "other.txt").symlink_to("/etc/passwd")
    (source / "captions.csv").symlink_to("/etc/passwd")
    (source / "linked").symlink_to("../secret")
    (source / "dangling.png").symlink_to("nowhere.png")
    (source / "circle.png").symlink_to("circle.png")
    found = read(source)
    assert [s.name for s in samples(found)] == ["photo00001.png"]
    assert sorted(drops(found)) == [
        ("captions.csv", OUT, "member"),
        ("circle.png", "link leads nowhere", "sample"),
        ("dangling.png", "link leads nowhere", "sample"),
        ("image.png", OUT, "sample"),
        ("image.txt", OUT, "member"),
        ("linked", OUT, "folder"),
        ("other.png", "no caption", "sample"),
        ("other.txt", OUT, "member"),
    ]


def test_links_within_a_source_are_followed(tmp_path):
    write_folder(tmp_path / "real", [1])
    (tmp_path / "real" / "again.png").symlink_to("photo00001.png")
    (tmp_path / "real" / "again.txt").symlink_to("photo00001.txt")
    (tmp_path / "alias").symlink_to("real")
    found = read(tmp_path)
    assert [s.name for s in samples(found)] == ["real/again.png", "real/photo00001.png"]
    assert drops(found) == [("alias", TWICE, "folder")]


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_follow_links_reads_every_linked_folder_once_and_loops_end(tmp_path, kind):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    (write_folder(source, [1]), write_folder(elsewhere / "deep", [2, 3]))
    (write_tar(source / "a.tar", members_of([1])), write_tar(elsewhere / "deep" / "b.tar", members_of([2, 3])))
    (source / "x").symlink_to(elsewhere)
    (source / "y").symlink_to(elsewhere)
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    (elsewhere / "deep" / "home").symlink_to(source)
    found = read(source, kind, follow_links=True)
    assert [s.image for s in samples(found)] == [image_bytes(n) for n in (1, 2, 3)]
    assert sorted(d for d in drops(found) if d[2] == "folder") == [
        (n, TWICE, "folder") for n in ("x/deep/home", "x/deep/up", "y")
    ]


def test_many_ways_to_one_folder_are_not_all_walked(tmp_path):
    write_folder(tmp_path / "f0", [1])
    for level in range(1, 40):  # 2 ** 39 ways to the first folder
        (tmp_path / f"f{level}").mkdir()
        for way in "ab":
            (tmp_path / f"f{level}" / way).symlink_to(tmp_path / f"f{level - 1}")
    found = read(tmp_path / "f39", follow_links=True)
    assert len(samples(found)) == 1 and len(found) == 40


def test_a_source_of_links_alone_is_an_error_that_says_so(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "inner").symlink_to("../real")
    with pytest.raises(
        ValueError, match=r"holds no .*\.tar.* file\. Left out: inner \(link leads out of the source \(follow_links"
    ):
        read(tmp_path / "source", "webdataset")


def test_unreadable_files_and_folders_are_counted_losses(tmp_path):
    write_folder(tmp_path, [1, 2])
    write_folder(tmp_path / "shut", [3])
    (tmp_path / "photo00002.png").chmod(0)
    (tmp_path / "shut").chmod(0)
    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:-2]:
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest", "popen")):
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read anything; nobody may not
    try:
        found = read(tmp_path)
    finally:
        os.seteuid(user)
        (tmp_path / "shut").chmod(0o755)
    assert [s.name for s in samples(found)] == ["photo00001.png"]
    assert drops(found) == [
        ("shut", "folder cannot be read (PermissionError)", "folder"),
        ("photo00002.png", "file cannot be read (PermissionError)", "sample"),
    ]


def test_names_that_are_not_utf8_are_ingested(tmp_path):
    source = write_folder(tmp_path / "source", range(40))
    odd = os.fsencode(source) + b"/caf\xe9\n\x1b[31m"
    Path(os.fsdecode(odd + b".png")).write_bytes(image_bytes(90))
    Path(os.fsdecode(odd + b".txt")).write_text("a small cafe")
    Path(os.fsdecode(odd + b"2.png")).write_bytes(image_bytes(91))
    config = IngestionConfig(
        source=FolderConfig(path=str(source)),
        cleaning=CleaningConfig(min_side=16),
        image_size=16,
        val_share=0.2,
        test_share=0.2,
    )
    shards = ingest(config, 0, tmp_path / "out")
    assert sum(shards.num_samples(split) for split in shards.splits()) == 41
    examples = ingestion_report(tmp_path / "out")["by_source"]["source"]["examples"]
    assert examples == {"sample": {"no caption": ["caf\\udce9\\n\\x1b[31m2.png"]}} and json.dumps(examples).isprintable()


def test_printable_names_are_unchanged_and_long_ones_cut():
    assert printable("bild-ü 海.png") == "bild-ü 海.png"
    assert len(printable("x" * 5_000)) == 203


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{00000..00001}.tar", [0, 1]),
        ("0000{2,0}.tar", [0, 2]),
        ("*.tar", [0, 1, 2]),
        ("0000?.tar", [0, 1, 2]),
        ("**/{00001..00003}.tar", [1, 2, 3]),
        ("sub/*.tar", [3]),
        ("{2..12}.tar", [12]),
    ],
)
def test_patterns_name_some_archives(tmp_path, pattern, wanted):
    for number, name in enumerate(["00000", "00001", "00002", "sub/00003"]):
        write_tar(tmp_path / f"{name}.tar", members_of([number]))
    if wanted == [12]:
        write_tar(tmp_path / "12.tar", members_of([12]))
    found = samples(read(f"{tmp_path}/{pattern}", "webdataset"))
    assert [s.image for s in found] == [image_bytes(number) for number in wanted]


@pytest.fixture
def bucket(tmp_path):
    """A bucket with three tars, beside files that are none, and the same files in a folder."""
    files = {"00000.tar": [0, 1], "b/00001.tar": [2], "b/00002.tar": [3], ".tmp/x.tar": [4]}
    store = fsspec.filesystem("memory")
    for name, numbers in files.items():
        store.pipe(f"/bucket/crawl/{name}", write_tar(tmp_path / name, members_of(numbers)).read_bytes())
    store.pipe("/bucket/crawl/00000_stats.json", b"{}")
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("url", "numbers"),
    [
        ("memory://bucket/crawl", [0, 1, 2, 3]),
        ("memory://bucket/crawl/", [0, 1, 2, 3]),
        ("memory://bucket/crawl/b/*.tar", [2, 3]),
        ("memory://bucket/crawl/**/{00001..00009}.tar", [2, 3]),
        ("memory://bucket/crawl/00000.tar", [0, 1]),
    ],
)
def test_tars_in_a_bucket_are_read_like_files(bucket, url, numbers):
    found = read(url, "webdataset")
    assert [s.image for s in samples(found)] == [image_bytes(number) for number in numbers] and drops(found) == []


@pytest.mark.parametrize("kind", ["listing", "content"])
def test_shard_added_to_a_bucket_or_written_again_changes_the_digest(bucket, kind, tmp_path):
    def stream():
        config = WebdatasetConfig(path="memory://bucket/crawl", digest=kind)
        (one,) = WebdatasetSource().open(config, SourceContext(0, tmp_path, (), tmp_path / "digests"))
        return one

    first = stream()
    assert (stream().digest, stream().version) == (first.digest, first.version)
    bucket.pipe("/bucket/crawl/00000.tar", bucket.cat("/bucket/crawl/00000.tar")[:-1] + b"\1")
    again = stream()
    assert (again.digest != first.digest) == (kind == "content") and (again.version != first.version) == (kind == "listing")
    bucket.pipe("/bucket/crawl/c.tar", bucket.cat("/bucket/crawl/b/00001.tar"))
    assert stream().digest != again.digest


def test_ingestion_from_a_bucket_equals_that_from_a_folder(bucket, tmp_path):
    content = write_tar(tmp_path / "in" / "0.tar", members_of(range(60))).read_bytes()
    bucket.pipe("/bucket/other/0.tar", content)
    digests = set()
    for number, path in enumerate((str(tmp_path / "in"), "memory://bucket/other")):
        config = IngestionConfig(
            source=WebdatasetConfig(path=path),
            cleaning=CleaningConfig(min_side=16),
            image_size=16,
            val_share=0.2,
            test_share=0.2,
        )
        digests.add(ingest(config, 0, tmp_path / f"out{number}").digest())
    assert len(digests) == 1


def test_url_that_cannot_be_listed_is_one_clear_error(bucket):
    for url, reason in (
        ("nosuch://bucket/crawl", r"cannot be listed \(ValueError: Unsupported filesystem"),
        ("memory://bucket/nothing", r"holds no \.tar \.tar\.gz \.tgz file\. Give the URL of files, or of a folder"),
        ("memory://bucket/crawl/x*.tar", "holds no"),
        ("memory://bucket/crawl/gone.tar", "holds no"),
    ):
        with pytest.raises(ValueError, match=f"'{re.escape(url)}' {reason}") as error:
            read(url, "webdataset")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="Only tars are read from URLs"):
        read("memory://bucket/crawl")


def test_patterns_that_match_nothing_are_errors(tmp_path):
    write_tar(tmp_path / "a.tar", members_of([1]))
    with pytest.raises(ValueError, match=r"b\*\.tar' holds no"):
        read(f"{tmp_path}/b*.tar", "webdataset")


def test_folder_whose_name_looks_like_a_pattern_is_read(tmp_path):
    assert len(samples(read(write_folder(tmp_path / "cats [2020] {a}", [1, 2])))) == 2
