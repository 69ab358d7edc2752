"""Two recorded versions of sets whose shards are in a bucket: a fresh clone gets each with `dvc pull`, and reads all of it."""

import copy
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from checkout import ROOT, clone, git
from preloaded import run
from shard_bucket import ShardBucket, shard_bucket
from tiny import VQVAE

from tests.fourfold.data.crawls import image_bytes, write_tar

ENVIRONMENT = "crawl"
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training")
CONFIGURED = [f"--env={ENVIRONMENT}", f"--pipelines={','.join(STAGES)}"]
PARAMETERS = {
    "ingestion": {"supplement": None, "val_share": 0.2, "test_share": 0.2, "samples_per_shard": 8},
    "pseudo_labeling": {
        "labelers": dict.fromkeys(("depth", "normal", "semseg", "det", "clip")) | {"canny_edge": "canny_edges"}
    },
    "tokenizer_training": {"visual": dict.fromkeys(("rgb", "canny_edge"), VQVAE | {"batch_size": 8})},
    "pretraining": {},
    "finetuning": {},
    "evaluation": {},
}


def done(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command of the environment in a project, require its exit code, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}", "DVC_NO_ANALYTICS": "1"}
    found = run([*command], folder, environment)
    assert found.returncode == code, found.stdout[-3000:] + found.stderr[-3000:]
    return found.stdout + found.stderr


def settings_of(path: str, steps: int) -> str:
    """Return parameters.yml of a source of tars, with tokenizers that learn for some steps."""
    values = copy.deepcopy(PARAMETERS)
    values["ingestion"]["source"] = {"kind": "webdataset", "path": path}
    for visual in values["tokenizer_training"]["visual"].values():
        visual["steps"] = steps
    return yaml.safe_dump(values, sort_keys=False)


def recorded(project: Path) -> dict[str, int]:
    """Run and push, commit, and return the bytes of each shard that the manifests name, by SHA-256."""
    text = done(project, "kedro", "run", *CONFIGURED, "--push")
    assert f"Recorded in dvc.lock: {', '.join(STAGES)}" in text and "Pushed to the DVC remote storage" in text
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a run")
    return named(project)


def named(project: Path) -> dict[str, int]:
    manifests = [json.loads(path.read_text()) for path in project.glob("data/*/*/*/*/manifest.json")]
    assert len(manifests) > 10
    return {shard["sha256"]: shard["bytes"] for manifest in manifests for shard in manifest["shards"]}


def objects(bucket: ShardBucket) -> set[str]:
    return {name.rpartition("/")[2].removesuffix(".tar") for name in bucket.store.names()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fresh_clone_pulls_each_recorded_version_and_reads_its_shards_from_the_bucket(tmp_path):
    for tar in range(2):
        numbers = range(24 * tar, 24 * tar + 24)
        images = [(f"photo{n:05d}.png", image_bytes(n, 64)) for n in numbers]
        texts = [(f"photo{n:05d}.txt", f"photo number {n}".encode()) for n in numbers]
        write_tar(tmp_path / f"crawl/{tar}.tar", sorted(images + texts))
    with shard_bucket() as bucket:
        # 1) A run, then another one with more data and other tokenizers; both are recorded and pushed
        entry = {"shards_at": {"type": "fourfold_ops.datasets.PlaceDataset", "place": bucket.place}}
        catalog = yaml.safe_load((ROOT / "conf/s3/catalog.yml").read_text()) | entry
        files = {"catalog": yaml.safe_dump(catalog), "parameters": settings_of(f"{tmp_path}/crawl/0.tar", steps=4)}
        project = clone(tmp_path / "project", files={f"conf/{ENVIRONMENT}/{name}.yml": text for name, text in files.items()})
        done(project, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "remote"))
        versions = [recorded(project)]
        assert not list(project.glob("data/0[1-3]*/**/shard-*.tar")) and objects(bucket) == versions[0].keys()
        (project / f"conf/{ENVIRONMENT}/parameters.yml").write_text(settings_of(f"{tmp_path}/crawl/{{0..1}}.tar", steps=5))
        versions.append(recorded(project))
        assert versions[0].keys() - versions[1].keys() and objects(bucket) == versions[0].keys() | versions[1].keys()
        assert not list((tmp_path / "remote").rglob("*.tar"))
        # 2) In a clone, which has only git, the remote and the bucket
        (project / "data").rename(tmp_path / "gone")
        (project / ".dvc/cache").rename(tmp_path / "gone too")
        other = tmp_path / "clone"
        git(tmp_path, "clone", "-q", str(project), str(other))
        uploads = bucket.uploads()
        commits = git(project, "rev-list", "--reverse", "-2", "HEAD").split()
        for commit, version in zip(commits, versions, strict=True):
            git(other, "checkout", "-q", commit)
            done(other, "dvc", "pull", "--allow-missing", "--force")
            assert named(other) == version and not list(other.glob("data/0[1-3]*/**/shard-*.tar"))
            assert len(done(other, "kedro", "verify").splitlines()) == len(list(other.glob("data/*/*/*/*/manifest.json")))
            assert "Nothing to do" in done(other, "kedro", "run", *CONFIGURED, "--only-changed")
        assert bucket.uploads() == uploads and not git(other, "status", "--porcelain")
        # 3) What the bucket has lost is named, and nothing else
        manifest = json.loads((other / "data/03_tokens/shards/train/tok_rgb/manifest.json").read_text())
        lost = manifest["shards"][0]["sha256"]
        bucket.store.client.delete_object(Bucket=bucket.store.bucket, Key=f"some/prefix/{lost[:2]}/{lost}.tar")
        text = done(other, "kedro", "reproduce", "--verify-only", code=65)
        assert text.count(f"SHA-256 absent in {bucket.place}") == text.count("SHA-256 absent") == 1
