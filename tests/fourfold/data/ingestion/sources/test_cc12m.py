"""Conceptual 12M from its official table: a real HTTP download on loopback, with everything that old addresses give.

`FOURFOLD_IMG2DATASET=.cache/img2dataset` (after `make img2dataset`) runs these tests with the real program too.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[4] / "support"))
import img2dataset_stand_in
from crawl_server import Server, serving

from fourfold.data.ingestion.ingest import IngestionConfig, expected_samples, ingest, ingestion_report
from fourfold.data.ingestion.sources import SOURCES
from tests.fourfold.killing import files_of

REAL = os.environ.get("FOURFOLD_IMG2DATASET")
BAD = {  # path → part of the reason
    "missing": "HTTP Error 404",
    "html": "failed to resize",
    "loop": "redirect error",
    "file": "not allowed",  # a redirect to a file of this machine
    "noai": "disallowed by X-Robots-Tag",
    "silent": "timed out",
    "endless": "more than 2000000 bytes",
    "drip": "more than 2 seconds",
}


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="no img2dataset"))])
def environment(request, tmp_path) -> Path:
    """The environment of img2dataset, or of its stand-in."""
    if request.param == "real":
        return Path(REAL or "")
    program = tmp_path / "environment" / "bin" / "img2dataset"
    program.parent.mkdir(parents=True)
    source = Path(img2dataset_stand_in.__file__).read_text()
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    return program.parents[1]


def settings(server: Server, tmp_path: Path, environment: Path, good: int = 24, bad: Iterable[str] = ()) -> IngestionConfig:
    """A table with good addresses, an address of some other kinds, and lines that name no address of the web."""
    lines = [f'{server.url}/good/{n}.jpg\ta "photo of {n}' for n in range(good)]  # an unpaired quote
    lines += [f"{server.url}/{kind}/x.jpg\ta {kind} one" for kind in bad]
    lines += [f"{server.url}/large/x.jpg\ta large one", "file:///etc/hostname\ta file", "no address", ""]
    (tmp_path / "cc12m.tsv").write_text("\n".join(lines))
    return IngestionConfig(
        source={
            "kind": "cc12m",
            "path": str(tmp_path / "cc12m.tsv"),
            "folder": str(tmp_path / "downloads"),
            "environment": str(environment),
            "image_size": 48,
            "samples_per_shard": 20,
            "processes": 1,
            "threads": 16,
            "timeout": 3,
            "max_seconds": 2,
            "max_file_bytes": 2_000_000,
            "retries": 0,
        },
        image_size=32,
        cleaning={"min_side": 16, "captions": "optional"},
        val_share=0.3,
        test_share=0.3,
    )


def test_every_address_becomes_a_sample_or_a_counted_reason(server, tmp_path, environment):
    config = settings(server, tmp_path, environment, bad=BAD)
    assert expected_samples(config) is None and not (tmp_path / "downloads").exists()
    shards = ingest(config, 0, tmp_path / "out")
    captions = {one["caption"] for split in shards.splits() for one in shards.iterate(split, ["caption"])}
    assert captions == {f'a "photo of {n}' for n in range(24)} | {"a large one"}
    # 1) Each kind of failure is counted once, by a reason that names it, and is no fault of the source
    report = ingestion_report(tmp_path / "out")["by_source"]["cc12m"]
    assert (report["kept"], report["seen"], report["drop_share"]) == (25, 25, 0)
    reasons = report["rows_dropped"]
    assert all(sum(count for reason, count in reasons.items() if text in reason) == 1 for text in BAD.values()), reasons
    assert sum(reasons.values()) == len(BAD)
    # 2) The command is written down, and nothing is downloaded twice
    assert "--resize_mode=keep_ratio" in (tmp_path / "downloads" / "command.txt").read_text()
    requests = server.requests.total()
    again = ingest(config, 0, tmp_path / "again")
    assert server.requests.total() == requests and files_of(again.root) == files_of(shards.root)


def test_what_robots_txt_forbids_is_not_asked_for_and_counted(server, tmp_path, environment, monkeypatch):
    if str(environment) == REAL:
        pytest.skip("the table is written before the program starts")
    server.robots = (200, b"User-agent: other\nDisallow: /\n\nUser-agent: *\nDisallow: /html/\nDisallow: /good/1")
    config = settings(server, tmp_path, environment, bad=["html"])
    monkeypatch.setenv("STAND_IN_DIES", "1")
    config.source.__dict__["samples_per_shard"] = 5
    with pytest.raises(ValueError, match="the next run continues"):
        ingest(config, 0, tmp_path / "out")
    monkeypatch.delenv("STAND_IN_DIES")
    shards = ingest(config, 0, tmp_path / "out")
    captions = {one["caption"] for split in shards.splits() for one in shards.iterate(split, ["caption"])}
    forbidden = {n for n in range(24) if str(n).startswith("1")}
    assert captions == {f'a "photo of {n}' for n in set(range(24)) - forbidden} | {"a large one"}
    assert ingestion_report(tmp_path / "out")["by_source"]["cc12m"]["rows_dropped"] == {"robots.txt forbids it": 12}
    assert server.requests["/robots.txt"] == 1 and not any(path.startswith(("/html", "/good/1")) for path in server.requests)
    assert SOURCES.get("cc12m").estimate(config.source) == len(captions)
    # A download without these rules is another one
    with pytest.raises(ValueError, match=r"a download with other settings \(robots\)"):
        SOURCES.get("cc12m").count(config.source.model_copy(update={"robots": False}), lambda key: "train")


def test_where_robots_txt_forbids_everything_the_error_says_so(server, tmp_path, environment):
    server.robots = (200, b"User-agent: *\nDisallow: /")
    with pytest.raises(ValueError, match="that starts with http:// or https:// and that servers allow"):
        ingest(settings(server, tmp_path, environment), 0, tmp_path / "out")


def test_an_interrupted_download_continues_with_the_shards_that_are_missing(server, tmp_path, environment, monkeypatch):
    if str(environment) == REAL:
        pytest.skip("the real program cannot be told to die")
    config = settings(server, tmp_path, environment, good=30)
    monkeypatch.setenv("STAND_IN_DIES", "1")
    with pytest.raises(ValueError, match=r"ended with status 1 \(killed\)\. See .*img2dataset\.log; the next run continues"):
        ingest(config, 0, tmp_path / "out")
    assert (tmp_path / "downloads/shards/00001.tar").exists()  # cut off
    first = {path for path in server.requests if path.startswith("/good/")}
    assert len(first) == 20
    monkeypatch.delenv("STAND_IN_DIES")
    shards = ingest(config, 0, tmp_path / "out")
    assert sum(map(shards.num_samples, shards.splits())) == 31
    assert {server.requests[path] for path in first} == {1}


def test_errors_name_what_is_missing(server, tmp_path, environment):
    config = settings(server, tmp_path, environment)
    source = SOURCES.get("cc12m")

    def count(**changes):
        source.count(config.source.model_copy(update=changes), lambda key: "train")

    with pytest.raises(ValueError, match=r"bin/img2dataset does not exist\. Run `make img2dataset`"):
        count(environment=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none\.tsv' does not exist\. Download the table of addresses first"):
        count(path=str(tmp_path / "none.tsv"))
    (tmp_path / "empty.tsv").write_text("caption\tno address\n")
    with pytest.raises(ValueError, match=r"names no address that starts with http"):
        source.open(config.source.model_copy(update={"path": str(tmp_path / "empty.tsv")}), None)
    ingest(config, 0, tmp_path / "out")
    with pytest.raises(ValueError, match=r"a download with other settings \(image_size\)\. Give another ingestion"):
        count(image_size=64)
