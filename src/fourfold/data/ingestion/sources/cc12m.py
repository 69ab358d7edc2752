"""Conceptual 12M (arXiv 2102.08981) from its official table of URLs and captions: img2dataset downloads, then tars are read.

img2dataset pins old libraries, so it lives in a separate environment and is run as a command (`make img2dataset`). A run
that is interrupted continues with the shards that are missing. Addresses without an image are counted by reason, and are no
fault of the source: years after its publication, two of five are gone.

    ingestion:
      source: {kind: cc12m, path: cc12m.tsv, folder: downloads/cc12m}
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import Field

from fourfold.data.ingestion.sources.crawling import (
    RECORD,
    REFUSED,
    Crawl,
    CrawlConfig,
    check_tool,
    download,
    is_complete,
    missing_shards,
    require_table,
)
from fourfold.data.ingestion.sources.files import printable
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig, open_tars
from fourfold.storage import read_json

ROWS_AT_ONCE = 5_000
MAX_REASON = 100  # characters
ESTIMATED_BYTES = 16 << 20  # of a table, whose lines stand for those of the rest


class Cc12mConfig(CrawlConfig):
    """Settings of Conceptual 12M."""

    kind: Literal["cc12m"] = "cc12m"
    path: str = Field(min_length=1)  # cc12m.tsv as published: address, tab, caption; no header
    caption_first: bool = False  # as in Conceptual Captions 3M


class Cc12mSource(Source):
    """Downloads what is missing, and reads the shards."""

    title = "Conceptual 12M, downloaded by img2dataset"
    config_class = Cc12mConfig

    def open(self, config: Cc12mConfig, context: SourceContext) -> list[SampleStream]:
        """Return one stream with a slice for each shard; downloads first, which can take hours."""
        crawl = Crawl(Path(config.path).expanduser(), config.caption_first, config)
        if not is_complete(crawl):
            download(crawl)
        tars = WebdatasetConfig(path=str(crawl.shards), max_file_bytes=config.max_file_bytes)
        stream = open_tars(tars, "cc12m", context=context)
        slices = [replace(one, read=partial(_read, crawl, one)) for one in stream.slices]
        refused = sorted((crawl.folder / REFUSED).glob("*.parquet"))
        slices += [SourceSlice(f"refused-{path.stem}", partial(_refused, path)) for path in refused]
        return [replace(stream, location=str(crawl.folder), slices=slices)]

    def count(self, config: Cc12mConfig, split_of: Callable[[str], str]) -> None:
        """Check that there is a table, and img2dataset unless everything is downloaded."""
        crawl = Crawl(Path(config.path).expanduser(), config.caption_first, config)
        if not is_complete(crawl):
            check_tool(config)

    def estimate(self, config: Cc12mConfig) -> int:
        """Return the number of images that were downloaded, and of addresses in the table that were not tried yet."""
        crawl = Crawl(Path(config.path).expanduser(), config.caption_first, config)
        require_table(crawl)
        is_known = (crawl.folder / RECORD).is_file()
        done = [read_json(path) for path in crawl.shards.glob("*_stats.json")]
        images, tried = (sum(int(one[name]) for one in done) for name in ("successes", "count"))
        if is_known and not missing_shards(crawl):
            return images
        return images + max(0, _estimate_lines(crawl.table) - tried)


def _refused(path: Path) -> Iterator[Drop]:
    """Yield a loss for each address that the rules of its server refuse."""
    for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield Drop(printable(row["url"]), row["reason"], "row")


def _estimate_lines(table: Path) -> int:
    """Return about how many lines a table has, by the bytes of the first ones."""
    with table.open("rb") as stream:
        start = stream.read(ESTIMATED_BYTES)
    lines, size = start.count(b"\n"), table.stat().st_size
    return round(lines * size / len(start)) if size > len(start) else lines + bool(start and not start.endswith(b"\n"))


def _read(crawl: Crawl, part: SourceSlice) -> Iterator[RawSample | Drop]:
    """Yield the addresses of a shard that gave no image, then the samples of its tar."""
    return chain(_failures(crawl.shards / f"{Path(part.name).stem}.parquet"), part.read())


def _failures(path: Path) -> Iterator[Drop]:
    """Yield a loss for each row without an image of img2dataset's table of a shard."""
    if not path.exists():
        return
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["url", "status", "error_message"]):
        for row in batch.to_pylist():
            if row["status"] != "success":
                reason = " ".join(f"{row['status']}: {row['error_message']}".replace("_", " ").split())
                yield Drop(printable(row["url"]), printable(reason[:MAX_REASON]), "row")
