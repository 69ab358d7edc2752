"""Measure the memory of every stage with few and with many samples: `python tests/torture/memory.py --count=20000`.

Runs the stages one after the other in two copies of the repository: with 1,000 samples, and with `--count`. Buffers that the
settings bound are full in both. The figure of a stage is the largest resident set of any of its processes. What a process holds
for each sample is the difference of both figures, divided by the difference in samples; more than `MAX_BYTES` in any stage is a
fault. The last line has all figures.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import ENVIRONMENT, PARAMETERS, tiny_clone

STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
FEW = 1_000
PER_SHARD = 250  # the same in both runs, since stages hold a few shards at a time
MAX_BYTES = 8_000  # what the allocator keeps varies by tens of megabytes, which is 3 kB a sample


def project(target: Path, num_samples: int) -> Path:
    """Clone the repository with the tiny environment and `num_samples` samples, of which all but 96 are in `train`."""
    ingestion = PARAMETERS["ingestion"]
    splits = ingestion["source"]["num_samples"]
    rest = sum(count for split, count in splits.items() if split != "train")
    source = {"num_samples": splits | {"train": num_samples - rest}, "images_per_shard": PER_SHARD}
    ingestion = ingestion | {"source": source, "samples_per_shard": PER_SHARD}
    tokenizers = PARAMETERS["tokenizer_training"] | {"max_training_samples": FEW - rest}
    return tiny_clone(target, ingestion=ingestion, tokenizer_training=tokenizers)


def peaks(folder: Path) -> dict[str, int]:
    """Run all stages, each in a separate process; return the largest resident set of each in bytes."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    found = {}
    for stage in STAGES:
        command = [sys.executable, "-m", "kedro", "run", f"--env={ENVIRONMENT}", f"--pipelines={stage}"]
        with (folder.with_suffix(".log")).open("ab") as log:
            child = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(child.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"{stage} ended with {code}: {folder.with_suffix('.log').read_text()[-3000:]}")
        found[stage] = usage.ru_maxrss * 1024  # Linux counts in KiB; includes processes that the stage waited for
        print(f"{folder.name}: {stage} {found[stage] / 1e6:.0f} MB", flush=True)
    return found


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="accepted like in other programs; nothing here is random")
    parser.add_argument("--count", type=int, default=20_000, help="number of samples of the larger run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        few, many = (peaks(project(Path(folder) / str(count), count)) for count in (FEW, options.count))
    slopes = {stage: (many[stage] - few[stage]) / (options.count - FEW) for stage in STAGES}
    figures = (f"{stage} {few[stage] / 1e6:.0f} → {many[stage] / 1e6:.0f} MB" for stage in STAGES)
    worst = max(slopes, key=lambda stage: slopes[stage])
    print(f"{FEW:,} → {options.count:,} samples: {', '.join(figures)}; at most {slopes[worst] / 1e3:.1f} kB a sample ({worst})")
    return int(slopes[worst] > MAX_BYTES)


if __name__ == "__main__":
    sys.exit(main())
