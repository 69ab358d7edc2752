"""Measure how the memory of the data stages grows with the number of samples, on generated image files.

    python benchmarks/scale.py --sizes 10000 100000

Each stage runs in a separate process with one thread for each size; its peak memory is compared between sizes. The slope is
in bytes a sample, and the last column is what that gives for 12 million. Images have 32 pixels: what one shard needs in memory
does not depend on the number of shards.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, PER_SHARD, CC12M = 32, 1000, 12_420_000  # pixels; samples of an archive and of a shard; samples
MIB = 2**20
LABELERS = {"canny_edge": "canny_edges"}
VQVAE = {"codebook_size": 64, "width": 16, "fine_width": 8, "unquantized_steps": 2, "steps": 4, "decoder_steps": 1}
ROWS = [{"type": "expect_column_values_to_be_between", "column": "bytes", "min_value": 1}]
SHARDS = [{"type": "expect_column_values_to_be_null", "column": "first_repeated_key"}]


def image(index: int) -> bytes:
    """Return an image that no other index has, as JPEG of 48 × 48 pixels."""
    coarse = np.random.default_rng(index).integers(0, 256, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def make_sources(folder: Path, count: int) -> None:
    """Write the same samples as files of a folder and as archives."""
    for start in range(0, count, PER_SHARD):
        (folder / "files" / f"{start:07d}").mkdir(parents=True)
        (folder / "tars").mkdir(exist_ok=True)
        with tarfile.open(folder / "tars" / f"{start:07d}.tar", "w") as archive:
            for index in range(start, min(start + PER_SHARD, count)):
                for ending, content in (("jpg", image(index)), ("txt", f"generated image {index}".encode())):
                    (folder / "files" / f"{start:07d}" / f"i{index}.{ending}").write_bytes(content)
                    member = tarfile.TarInfo(f"i{index}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def ingest_tars(folder: Path) -> None:
    """Ingest the archives."""
    _ingest(folder, "webdataset", "tars", "raw")


def ingest_files(folder: Path) -> None:
    """Ingest the files."""
    _ingest(folder, "folder", "files", "raw_files")


def _ingest(folder: Path, kind: str, source: str, out: str) -> None:
    from fourfold.data.ingestion.ingest import IngestionConfig, ingest

    settings = {"source": {"kind": kind, "path": str(folder / source)}, "image_size": SIDE, "samples_per_shard": PER_SHARD}
    ingest(IngestionConfig.model_validate(settings), 0, folder / out)


def label(folder: Path) -> None:
    """Label all images."""
    from fourfold.data.shards import ShardSet
    from fourfold.labelers import label_shards, train_teachers
    from fourfold.metric_log import NullMetricLog

    images, config = ShardSet(folder / "raw/shards"), _labeling()
    teachers = train_teachers(images, ShardSet(folder / "raw/truth"), config, 0, folder / "teachers", NullMetricLog())
    label_shards(images, teachers, config, folder / "raw_labels")


def integrate(folder: Path) -> None:
    """Check and combine the labels."""
    from fourfold.data.shards import ShardSet
    from fourfold.labelers import integrate_labels

    integrate_labels(ShardSet(folder / "raw_labels"), ShardSet(folder / "raw/shards"), _labeling(), folder / "labels")


def _labeling() -> Any:
    from fourfold.labelers import LabelingConfig

    return LabelingConfig(labelers=LABELERS)


def tokenize(folder: Path) -> None:
    """Train a tokenizer of images for four steps, and tokenize all images and captions."""
    from fourfold.data.crops import CropConfig
    from fourfold.data.shards import ShardSet
    from fourfold.tokenizers.config import TokenizersConfig
    from fourfold.tokenizers.pretokenizing import pretokenize
    from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
    from fourfold.training.run_context import RunContext

    images, labels = ShardSet(folder / "raw/shards"), ShardSet(folder / "labels")
    config = TokenizersConfig.model_validate({"visual": {"rgb": VQVAE}, "max_training_samples": 1000})
    tokenizers = train_tokenizers(images, labels, config, RunContext(0, folder / "tokenizers"))
    context = RunContext(0, folder / "tokens")
    pretokenize(images, labels, tokenizers, CropConfig(num_crops=1), context, splits=["train", "val"])


def check_images(folder: Path) -> None:
    """Check the images as the catalog does."""
    _check(folder, "raw/shards")


def check_labels(folder: Path) -> None:
    """Check the labels as the catalog does."""
    _check(folder, "labels")


def check_tokens(folder: Path) -> None:
    """Check the tokens as the catalog does."""
    _check(folder, "tokens")


def _check(folder: Path, name: str) -> None:
    from fourfold.data.shards import ShardSet
    from fourfold_ops.quality import GreatExpectations

    totals = {"suite": "totals", "table": "fourfold.data.fact_tables.shard_table", "key": "shard", "expectations": SHARDS}
    options = {"table": "fourfold.data.fact_tables.fact_table", "key": "key", "expectations": ROWS, "also": [totals]}
    data = ShardSet(folder / name)
    data.verify()
    GreatExpectations(suite="rows", path=str(folder / "quality" / name), **options).validate(data)


STAGES: tuple[Callable[[Path], None], ...] = (
    ingest_tars,
    ingest_files,
    check_images,
    label,
    integrate,
    check_labels,
    tokenize,
    check_tokens,
)


def run(stage: str, folder: Path) -> None:
    """Run one stage in this process, and print its peak memory in bytes and its seconds."""
    import torch

    from fourfold.plugins import load_plugins

    torch.set_num_threads(1)  # all work in this process, which is the one that is measured
    load_plugins([])
    began = time.monotonic()
    next(one for one in STAGES if one.__name__ == stage)(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "seconds": round(time.monotonic() - began, 1)}))


def measure(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    """Return the peak memory of each stage at each size, and the slope between the first and the last one."""
    for size in sizes:
        make_sources(folder / str(size), size)
    rows = []
    for stage in STAGES:
        peaks, seconds = [], []
        for size in sizes:
            command = [sys.executable, __file__, "--stage", stage.__name__, "--folder", str(folder / str(size))]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            peaks.append(found["peak"])
            seconds.append(found["seconds"])
        slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        rows.append(
            {
                "stage": stage.__name__,
                "peak_mib": [round(peak / MIB) for peak in peaks],
                "seconds": seconds,
                "bytes_a_sample": round(slope, 1),
                "mib_at_cc12m": round((peaks[-1] + max(slope, 0) * (CC12M - sizes[-1])) / MIB),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure and print, or run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of samples, ascending")
    parser.add_argument("--stage", choices=[one.__name__ for one in STAGES], help="run this stage alone, in --folder")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.stage:
        run(options.stage, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.sizes, Path(folder))
    print(json.dumps({"benchmark": "scale", "sizes": options.sizes, "stages": rows}))


if __name__ == "__main__":
    main()
