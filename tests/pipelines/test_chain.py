"""All stages at smoke size: two clones give the same bytes, though one of them is killed in every stage."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
LAST_NODES = {
    "ingestion": "ingest_images",
    "pseudo_labeling": "measure_labelers",
    "tokenizer_training": "tokenize_shards",
    "pretraining": "assemble_model",
    "finetuning": "compare_arms",
}
TIMED = {"metrics.json", "report.html"}  # they contain durations; metrics.json is compared without them
LIMIT = 600  # seconds of one run


def clone(target: Path) -> Path:
    """Copy the files that git tracks, in their current state, into a separate repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "clone"]):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "kedro", "run", "--env=smoke"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path) -> None:
    process = start(folder)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output[-3000:]


def begun(folder: Path, stage: str) -> bool:
    """Return whether the stage before `stage` has finished in this run."""
    if stage == STAGES[0]:
        return (folder / "data/01_raw/crawl").exists()
    before = STAGES[STAGES.index(stage) - 1]
    table = folder / "data/seconds.json"
    return table.exists() and LAST_NODES[before] in json.loads(table.read_text()).get(before, {})


def kill_in(folder: Path, stage: str, seconds: float) -> None:
    """Run until `stage` has worked for `seconds`, then send SIGKILL to the process group."""
    (folder / "data/seconds.json").unlink(missing_ok=True)  # so that it describes this run
    process = start(folder)
    deadline = time.monotonic() + LIMIT
    while not begun(folder, stage):
        assert process.poll() is None and time.monotonic() < deadline, (
            f"{stage} was never reached: {process.stdout.read()[-3000:]}"
        )
        time.sleep(0.05)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def outputs(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that the stages wrote."""
    files = sorted(path for path in folder.glob("data/0[1-5]_*/**/*") if path.is_file() and path.name not in TIMED)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_run_killed_in_every_stage_equals_an_unbroken_run(tmp_path):
    unbroken, broken = clone(tmp_path / "one clone"), clone(tmp_path / "another")
    finish(unbroken)
    moments = random.Random(0)
    for stage in STAGES:
        kill_in(broken, stage, moments.uniform(0.1, 1.5))
    finish(broken)
    wanted, found = outputs(unbroken), outputs(broken)
    assert len(wanted) > 100
    assert {name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)} == set()
    tables = [json.loads((folder / "data/05_reports/metrics.json").read_text()) for folder in (unbroken, broken)]
    assert all(table.pop("seconds") for table in tables)
    assert tables[0] == tables[1]
