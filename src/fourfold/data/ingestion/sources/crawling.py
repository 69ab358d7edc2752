"""Download of images by img2dataset, as a command in a separate environment: written down, resumed, counted.

<folder>/crawl.json        what is downloaded, with which settings
<folder>/robots.sqlite     the robots.txt of every server
<folder>/refused/*.parquet addresses that these refuse
<folder>/input/*.parquet   addresses and captions
<folder>/command.txt       the command, to be run by hand or on other machines
<folder>/img2dataset.log   its output
<folder>/shards/           00000.tar with 00000.parquet (all rows) and 00000_stats.json, which is written last
"""

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from fourfold.data.ingestion.sources.robots import Asking, Robots
from fourfold.data.ingestion.sources.source import SourceConfig
from fourfold.digests import sha256_file
from fourfold.storage import atomic_path, read_json, write_bytes, write_json

logger = logging.getLogger(__name__)
GUARD = Path(__file__).parent / "crawl_guard"  # a module that Python loads at its start in the processes of img2dataset
RECORD, COMMAND, LOG = "crawl.json", "command.txt", "img2dataset.log"
INPUT, REFUSED, ROBOTS = "input", "refused", "robots.sqlite"
AGENT = "img2dataset"  # to robots.txt, unless the settings have a name
SHARDS_PER_FILE = 100  # of the input: img2dataset holds one file of it in memory
SCHEMA = pa.schema([("url", pa.string()), ("caption", pa.string())])
REFUSED_SCHEMA = pa.schema([("url", pa.string()), ("reason", pa.string())])
ATTEMPTS = 3  # of a shard that fails as a whole
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_LINES = 0.5, 60.0
SHOWN_LINES = 3  # of the log, in an error


class CrawlConfig(SourceConfig):
    """Settings of a download."""

    folder: str = Field(min_length=1)  # where it is kept, outside of data/: it is large, and resumes
    environment: str = ".cache/img2dataset"  # the environment that `make img2dataset` creates
    image_size: int = Field(256, ge=32)  # pixels of the shorter side; smaller images keep their size
    encode_quality: int = Field(95, ge=1, le=100)  # of JPEG
    samples_per_shard: int = Field(10_000, ge=1)  # rows; about 300 MB
    processes: int = Field(4, ge=1)
    threads: int = Field(64, ge=1)  # downloads at the same time, of each process
    timeout: int = Field(10, ge=1)  # seconds without an answer
    max_seconds: int = Field(60, ge=1)  # of one download
    max_file_bytes: int = Field(50_000_000, ge=1_000)  # of one image
    retries: int = Field(2, ge=0)
    user_agent_token: str | None = None  # names the project to web servers, in robots.txt and in X-Robots-Tag headers
    robots: bool = True  # whether the robots.txt of each server is read and obeyed


@dataclass(frozen=True)
class Crawl:
    """One download."""

    table: Path  # tab-separated addresses and captions
    caption_first: bool
    config: CrawlConfig

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        return Path(self.config.folder).expanduser()

    @property
    def shards(self) -> Path:
        """The folder of the tars."""
        return self.folder / "shards"

    def settings(self) -> dict[str, Any]:
        """Return what the shards depend on: table and settings of images."""
        names = {"image_size", "encode_quality", "samples_per_shard", "robots"}
        about = {"caption_first": self.caption_first, "table_bytes": self.table.stat().st_size}
        return self.config.model_dump(mode="json", include=names) | about | {"table_sha256": sha256_file(self.table)}

    def asking(self) -> Asking:
        """Return how servers are asked for their rules."""
        config = self.config
        return Asking(config.user_agent_token or AGENT, config.timeout, config.max_seconds, config.threads)

    def command(self) -> list[str]:
        """Return the command that downloads what is missing."""
        config = self.config
        options: dict[str, Any] = {
            "url_list": self.folder / INPUT,
            "input_format": "parquet",
            "url_col": "url",
            "caption_col": "caption",
            "output_format": "webdataset",
            "output_folder": self.shards,
            "incremental_mode": "incremental",
            "number_sample_per_shard": config.samples_per_shard,
            "image_size": config.image_size,
            "resize_mode": "keep_ratio",  # the default adds white borders
            "resize_only_if_bigger": True,
            "encode_quality": config.encode_quality,
            "processes_count": config.processes,
            "thread_count": config.threads,
            "timeout": config.timeout,
            "retries": config.retries,
            "compute_hash": "sha256",
            "enable_wandb": False,
        }
        if config.user_agent_token:
            options["user_agent_token"] = config.user_agent_token
        return [str(program(config)), *(f"--{name}={value}" for name, value in options.items())]


def program(config: CrawlConfig) -> Path:
    """Return the path of img2dataset in its environment."""
    return Path(config.environment).expanduser().absolute() / "bin" / "img2dataset"


def check_tool(config: CrawlConfig) -> None:
    """Raise ValueError when img2dataset is not installed."""
    if not program(config).is_file():
        raise ValueError(
            f"{program(config)} does not exist. Run `make img2dataset`, which installs it there, or set "
            "ingestion.source.environment to an environment that has it."
        )


def require_table(crawl: Crawl) -> None:
    """Raise ValueError when the table of addresses does not exist."""
    if not crawl.table.is_file():
        raise ValueError(f"ingestion.source.path {str(crawl.table)!r} does not exist. Download the table of addresses first.")


def is_complete(crawl: Crawl) -> bool:
    """Return whether everything was downloaded.

    Raises:
        ValueError: there is no table, or the folder has the download of another table or of other settings.
    """
    require_table(crawl)
    record = crawl.folder / RECORD
    if not record.is_file():
        return False
    known = read_json(record)
    found = crawl.settings()
    if different := sorted(name for name, value in found.items() if known.get(name) != value):
        raise ValueError(
            f"{crawl.folder} has a download with other settings ({', '.join(different)}). Give another "
            "ingestion.source.folder, or delete that one."
        )
    return not missing_shards(crawl)


def missing_shards(crawl: Crawl) -> list[str]:
    """Return the names of the shards that are not complete. A tar without statistics was cut off."""
    count = read_json(crawl.folder / RECORD)["shards"]
    names = [f"{number:05d}" for number in range(count)]
    return [name for name in names if not (crawl.shards / f"{name}_stats.json").is_file()]


def download(crawl: Crawl) -> None:
    """Download what is missing.

    Raises:
        ValueError: img2dataset is not installed, fails, or leaves shards out.
    """
    # 1) The input, and the command
    check_tool(crawl.config)
    record = crawl.folder / RECORD
    if not record.is_file():
        shards = _write_input(crawl)
        write_json(record, {**crawl.settings(), "shards": shards})
    crawl.shards.mkdir(parents=True, exist_ok=True)
    write_bytes(crawl.folder / COMMAND, f"{shlex.join(crawl.command())}\n".encode())
    # 2) Run it until no shard is missing; one that was cut off is removed first, so that nothing reads it
    for _ in range(ATTEMPTS):
        for name in missing_shards(crawl):
            for path in crawl.shards.glob(f"{name}.*"):
                path.unlink()
        _run(crawl)
        if not missing_shards(crawl):
            break
    if missing := missing_shards(crawl):
        raise ValueError(
            f"img2dataset left out {len(missing)} shards, e.g. {missing[0]} ({_last_lines(crawl)}). See {crawl.folder / LOG}; "
            "the next run continues."
        )
    logger.info("%s", _progress(crawl))


def _write_input(crawl: Crawl) -> int:
    """Write the addresses and captions as Parquet, which has no quoting, and return the number of shards that they give.

    Only addresses of the web are passed on, as others could name files of this machine, and only those that robots.txt of
    their servers allows.
    """
    with closing(Robots(crawl.folder / ROBOTS, crawl.asking())) as robots:
        if crawl.config.robots:
            robots.fetch(row["url"] for row in _rows(crawl))
        shards = _write_rows(crawl, robots.refusal if crawl.config.robots else lambda url: None)
    if not shards:
        allowed = " and that servers allow" if crawl.config.robots else ""
        raise ValueError(
            f"{crawl.table} names no address that starts with http:// or https://{allowed}. Its lines must have an "
            "address, a tab and a caption, or the reverse with caption_first."
        )
    return shards


def _write_rows(crawl: Crawl, refusal: Callable[[str], str | None]) -> int:
    """Write the input, and the addresses that are refused with the reason; return the number of shards."""
    no_address, refused, shards = 0, 0, 0
    rows = _rows(crawl)
    for number in count():
        chunk = list(islice(rows, crawl.config.samples_per_shard * SHARDS_PER_FILE))
        if not chunk:
            break
        of_web = [row for row in chunk if row["url"].lower().startswith(("http://", "https://"))]
        reasons = [refusal(row["url"]) for row in of_web]
        kept = [row for row, reason in zip(of_web, reasons, strict=True) if reason is None]
        left_out = [{"url": row["url"], "reason": why} for row, why in zip(of_web, reasons, strict=True) if why is not None]
        no_address, refused = no_address + len(chunk) - len(of_web), refused + len(left_out)
        for folder, found, schema in ((INPUT, kept, SCHEMA), (REFUSED, left_out, REFUSED_SCHEMA)):
            if found:
                with atomic_path(crawl.folder / folder / f"{number:05d}.parquet") as temporary:
                    pq.write_table(pa.Table.from_pylist(found, schema), temporary)
        shards += -(-len(kept) // crawl.config.samples_per_shard)
    if no_address:
        logger.warning("%d lines of %s have no address of the web and are left out.", no_address, crawl.table)
    if refused:
        logger.warning("%d addresses of %s are left out, as robots.txt of their servers says.", refused, crawl.table)
    return shards


def _rows(crawl: Crawl) -> Iterator[dict[str, str]]:
    with crawl.table.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            first, _, second = line.rstrip("\r\n").partition("\t")
            url, caption = (second, first) if crawl.caption_first else (first, second)
            yield {"url": url.strip(), "caption": caption.strip()}


def _run(crawl: Crawl) -> None:
    """Run the command and wait for it; it ends with this process.

    Raises:
        ValueError: it ends with an error before any shard is complete.
    """
    config = crawl.config
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(GUARD)}
    environment |= {"FOURFOLD_MAX_BYTES": str(config.max_file_bytes), "FOURFOLD_MAX_SECONDS": str(config.max_seconds)}
    with (crawl.folder / LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  the program is of the settings, and there is no shell
            crawl.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            status = _wait(process, crawl)
        finally:
            _end(process)
    if status:
        raise ValueError(
            f"img2dataset ended with status {status} ({_last_lines(crawl)}). See {crawl.folder / LOG}; the next run continues."
        )


def _wait(process: "subprocess.Popen[bytes]", crawl: Crawl) -> int:
    last = time.monotonic()
    while True:
        try:
            return process.wait(SECONDS_BETWEEN_LOOKS)
        except subprocess.TimeoutExpired:
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                logger.info("%s", _progress(crawl))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the command with all its processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _progress(crawl: Crawl) -> str:
    """Return how far the download is, from the statistics of the shards."""
    found = [read_json(path) for path in sorted(crawl.shards.glob("*_stats.json"))]
    count, successes = (sum(one[name] for one in found) for name in ("count", "successes"))
    total = read_json(crawl.folder / RECORD)["shards"]
    return f"Downloaded {len(found):,} of {total:,} shards: {successes:,} images of {count:,} addresses."


def _last_lines(crawl: Crawl) -> str:
    """Return the end of the log, for an error."""
    try:
        text = (crawl.folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "no output"
    return " / ".join(filter(None, (line.strip() for line in text.splitlines()[-SHOWN_LINES:]))) or "no output"
