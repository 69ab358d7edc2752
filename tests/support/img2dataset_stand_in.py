"""Takes the options of img2dataset 1.47 and writes its files, for tests: the real one needs 650 MB of packages.

`tests/fourfold/data/ingestion/sources/test_cc12m.py` uses the real one too, where FOURFOLD_IMG2DATASET names its environment.
With STAND_IN_DIES=1 it ends after the first shard in the middle of the second, as when it is killed.
"""

import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def fetch(row: dict, options: dict) -> tuple[str, str | None, bytes]:
    """Return status, error message and JPEG of one row."""
    error = ""
    for _ in range(int(options["retries"]) + 1):
        try:
            with urllib.request.urlopen(row["url"], timeout=int(options["timeout"])) as answer:
                if "noai" in answer.headers.get("X-Robots-Tag", ""):
                    return "failed_to_download", "Use of image disallowed by X-Robots-Tag directive", b""
                content = answer.read()
                break
        except Exception as problem:
            error = str(problem)
    else:
        return "failed_to_download", error, b""
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except Exception:
        return "failed_to_resize", "Image decoding error", b""
    scale = int(options["image_size"]) / min(image.size)
    buffer = io.BytesIO()
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size])
    image.save(buffer, "JPEG", quality=int(options["encode_quality"]))
    return "success", None, buffer.getvalue()


def write_shard(folder: Path, number: int, rows: list[dict], options: dict) -> None:
    """Write tar, table and, last, statistics of one shard."""
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: fetch(row, options), rows))
    table, name = [], f"{number:05d}"
    with tarfile.open(folder / f"{name}.tar", "w") as archive:
        for index, (row, (status, error, content)) in enumerate(zip(rows, found, strict=True)):
            key = f"{number:05d}{index:04d}"
            table.append({"key": key, **row, "status": status, "error_message": error})
            members = [("jpg", content), ("txt", row["caption"].encode()), ("json", json.dumps(table[-1]).encode())]
            for extension, data in members if status == "success" else ():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    counts = {status: sum(row["status"] == status for row in table) for status in ("success", "failed_to_download")}
    stats = {"count": len(rows), "successes": counts["success"], "failed_to_download": counts["failed_to_download"]}
    (folder / f"{name}_stats.json").write_text(json.dumps(stats))


def main() -> None:
    options = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    folder, size = Path(options["output_folder"]), int(options["number_sample_per_shard"])
    rows = [row for path in sorted(Path(options["url_list"]).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    for number, start in enumerate(range(0, len(rows), size)):
        if (folder / f"{number:05d}_stats.json").exists():
            continue
        if number and os.environ.get("STAND_IN_DIES"):
            (folder / f"{number:05d}.tar").write_bytes(hashlib.sha256(b"torn").digest() * 40)
            sys.exit("killed")
        write_shard(folder, number, rows[start : start + size], options)


if __name__ == "__main__":
    main()
