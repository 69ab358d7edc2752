"""What `kedro plan` says about bytes of the configured data: arithmetic against real shards, and estimates against sources."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from omegaconf import OmegaConf
from pyarrow import parquet
from pydantic import TypeAdapter

from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.data.ingestion.sources import SOURCES, AnySourceConfig
from fourfold.data.shard_store import keep_at
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.labelers.config import LabelingConfig
from fourfold.scenes.world.config import DEFAULT_NUM_SAMPLES
from fourfold.tokenizers.config import TokenizersConfig
from pipelines import sizes, storage
from pipelines.planning import PROJECT
from pipelines.sizes import SETS
from pipelines.storage import Configured, count_images, find_storage
from tests.fourfold.data.crawls import image_bytes, members_of, write_folder, write_tar

ROOT = Path(__file__).parents[2]
COMPLETE = ("images", "raw labels", "labels", "tokens")


def test_settings_that_are_not_given_have_the_defaults_of_the_stages():
    assert IngestionConfig.model_fields["image_size"].default == storage.IMAGE_SIZE
    assert IngestionConfig.model_fields["storage"].default.format == storage.FORMAT
    assert {IngestionConfig.model_fields[f"{split}_share"].default for split in ("val", "test")} == {storage.SHARE}
    assert LabelingConfig.model_fields["keep"].default == storage.KEEP
    assert LabelingConfig.model_fields["sample_size"].default == storage.SAMPLE_SIZE
    assert (TokenizersConfig().grid, TokenizersConfig().crops.num_crops) == (storage.GRID, storage.NUM_CROPS)
    assert (sum(DEFAULT_NUM_SAMPLES.values()), DEFAULT_NUM_SAMPLES["train"]) == (storage.SCENES, storage.SCENES_TRAIN)


def test_arithmetic_is_that_of_shards_that_cannot_be_compressed(tmp_path):
    labelers = {"depth": "x", "normal": "x", "canny_edge": "x", "dinov2": "x", "dinov2_global": "x", "semseg": None}
    parameters = {"ingestion": {"image_size": 32}, "pseudo_labeling": {"labelers": labelers}}
    rng, count = np.random.default_rng(0), 50
    values = {
        "depth": lambda: rng.random((32, 32)).astype(np.float16),
        "normal": lambda: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        "canny_edge": lambda: rng.integers(0, 256, (32, 32), dtype=np.uint8),
        "dinov2": lambda: rng.random((8, 8, 768)).astype(np.float16),
        "dinov2_global": lambda: rng.random(768).astype(np.float16),
    }
    columns = {name: [(f"k{n:04}", make()) for n in range(count)] for name, make in values.items()}
    write_columns(tmp_path, "val", shard_name(0), columns)
    finish_split(tmp_path, "val", list(columns))
    computed = Configured.of(parameters).computed()["labels"]
    assert computed.keys() - {"facts"} == values.keys()
    for name in values:
        written = (tmp_path / "val" / name / shard_name(0)).stat().st_size / count
        assert computed[name] == pytest.approx(written, rel=0.15), name


def sources(root):
    """A source of each kind that reads files, with 30 images."""
    write_folder(root / "folder", range(30))
    for shard in range(3):
        write_tar(root / f"tars/{shard}.tar", members_of(range(10 * shard, 10 * shard + 10)))
        rows = [{"image": {"bytes": image_bytes(n), "path": None}} for n in range(10)]
        (root / "parquet").mkdir(exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), root / f"parquet/{shard}.parquet")
    (root / "cc12m.tsv").write_text("".join(f"http://127.0.0.1/{n}.jpg\ta photo\n" for n in range(30)).rstrip())
    found = {
        "folder": {"kind": "folder", "path": str(root / "folder")},
        "webdataset": {"kind": "webdataset", "path": str(root / "tars")},
        "parquet": {"kind": "parquet", "path": str(root / "parquet")},
    }
    several = {"kind": "several", "sources": {name: found[name] for name in ("folder", "parquet")}}
    table = {"kind": "cc12m", "path": str(root / "cc12m.tsv"), "folder": str(root / "downloads")}
    return found | {"several": several, "cc12m": table}


def test_images_are_counted_without_reading_them(tmp_path):
    counts = {kind: count_images(tmp_path, {"ingestion": {"source": one}}) for kind, one in sources(tmp_path).items()}
    assert counts == {"folder": 30, "webdataset": pytest.approx(30, abs=3), "parquet": 30, "several": 60, "cc12m": 30}


def test_addresses_that_were_tried_count_as_what_they_gave(tmp_path):
    table = sources(tmp_path)["cc12m"]
    (tmp_path / "downloads/shards").mkdir(parents=True)
    (tmp_path / "downloads/shards/00000_stats.json").write_text(json.dumps({"count": 20, "successes": 12}))
    assert count_images(tmp_path, {"ingestion": {"source": table}}) == 12 + 10


def test_a_large_table_is_estimated_by_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold.data.ingestion.sources.cc12m.ESTIMATED_BYTES", 1_000)
    (tmp_path / "x.tsv").write_text("".join(f"http://127.0.0.1/{n:06}.jpg\ta photo\n" for n in range(5_000)))
    config = TypeAdapter(AnySourceConfig).validate_python({"kind": "cc12m", "path": str(tmp_path / "x.tsv"), "folder": "d"})
    assert SOURCES.get("cc12m").estimate(config) == pytest.approx(5_000, rel=0.05)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "folder", "path": "/no/such/folder"},
        {"kind": "webdataset", "path": "s3://bucket/x"},
        {"kind": "of_a_plugin"},
        {"kind": "parquet", "pth": "x"},
    ],
)
def test_without_a_count_the_table_is_for_a_million_images_and_nothing_is_missing(tmp_path, source):
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    found = find_storage(tmp_path, {"ingestion": {"source": source}, "pseudo_labeling": {"labelers": {"depth": "x"}}})
    assert (found.values["images"], found.needed) == (None, 0)
    assert "for each 1,000,000 images, as their number is not known yet" in found.lines[0]


def test_settings_of_a_wrong_type_are_left_to_the_checks_of_the_plan(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    assert PROJECT.storage(tmp_path, {"ingestion": {"source": {"kind": "scenes"}, "image_size": "large"}}, {}) is None
    assert PROJECT.storage(tmp_path, {"ingestion": [], "pseudo_labeling": {"labelers": 3, "keep": "most"}}, {}).needed == 0


def test_compressed_and_damaged_tars_give_no_wrong_count(tmp_path):
    tar = write_tar(tmp_path / "a/x.tar", members_of(range(8)))
    (tmp_path / "a/broken.tar").write_bytes(b"\x01" * 10_240)
    assert count_images(tmp_path, {"ingestion": {"source": {"kind": "webdataset", "path": str(tmp_path / "a")}}}) >= 7
    (tmp_path / "a/y.tar.gz").write_bytes(tar.read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    assert count_images(tmp_path, {"ingestion": {"source": {"kind": "webdataset", "path": str(tmp_path / "a")}}}) is None


def test_what_was_made_with_the_same_settings_is_measured(finished):
    files = [OmegaConf.load(finished / f"conf/{env}/parameters.yml") for env in ("base", "tiny")]
    parameters = OmegaConf.to_container(OmegaConf.merge(*files))
    # 1) All of it: the bytes of the shards themselves
    found = find_storage(finished, parameters)
    assert tuple(name for name in SETS if name in found.values["measured"]) == COMPLETE
    assert found.values["images"] == 6 * 16 + 48
    shards = [path for path in (finished / "data" / SETS["images"]).rglob("shard-*") if path.is_file()]
    assert found.values["bytes"]["all"]["images"] == pytest.approx(sum(path.stat().st_size for path in shards), rel=1e-6)
    assert found.needed == pytest.approx(2 * sum(found.values["bytes"]["all"].values()), abs=1)  # DVC's cache
    # 2) Other labelers, tokens, sizes
    for change, measured in (
        (("pseudo_labeling", "labelers", {"depth": "other"}), ["images"]),
        (("tokenizer_training", "grid", [4, 4]), ["images", "labels", "raw labels"]),
        (("ingestion", "image_size", 32), []),
        (("ingestion", "storage", {"format": "jpeg"}), []),
    ):
        other = copy.deepcopy(parameters)
        other[change[0]][change[1]] = change[2]
        assert find_storage(finished, other).values["measured"] == measured, change


def test_what_is_kept_changes_the_sum_and_the_advice_names_it(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    parameters = yaml.safe_load((ROOT / "conf/cc12m/parameters.yml").read_text())
    parameters["ingestion"]["source"] = sources(tmp_path)["folder"]
    stored = find_storage(tmp_path, parameters)
    assert "With pseudo_labeling.keep: none it is" in stored.advice and any(line.startswith("  all *") for line in stored.lines)
    parameters["pseudo_labeling"]["keep"] = "none"
    assert find_storage(tmp_path, parameters).needed < stored.needed / 10
    # the labels of a sample, as docs/large-data.md has them: 503,808 bytes
    labels = Configured.of(parameters).computed()["labels"]
    assert sum(labels.values()) == pytest.approx(503_808, rel=0.02)


def test_shards_in_a_bucket_are_no_disk(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    (tmp_path / ".dvc").mkdir()
    parameters = yaml.safe_load((ROOT / "conf/cc12m/parameters.yml").read_text())
    parameters["ingestion"]["source"] = sources(tmp_path)["folder"]
    places = (None, "s3://b/x", str(tmp_path / "store"))
    local, there, folder = (find_storage(tmp_path, parameters, {"shards_at": {"place": place}}) for place in places)
    # 1) The sets are the same; in the bucket, labels that their combination leaves unchanged are once
    per_set = {name: sum(found.values()) for name, found in Configured.of(parameters).computed().items()}
    facts = 30 * storage.FACTS_BYTES
    wanted = 30 * (per_set["images"] + per_set["labels"] + per_set["tokens"]) - 3 * facts
    assert there.values["bytes"] == local.values["bytes"] and "apart" not in local.values
    assert there.values["apart"]["all"] == pytest.approx({"shards": wanted, "disk": 4 * facts})
    assert any(line.startswith("  of these, shards at s3://b/x") for line in there.lines)
    # 2) The disk needs the facts, which DVC copies, and room for the images while they are ingested
    assert there.needed == pytest.approx(2 * 4 * facts + 30 * per_set["images"], abs=1) and local.needed > 10 * there.needed
    assert folder.needed == pytest.approx(2 * 4 * facts + wanted, abs=1)  # on the same disk
    assert find_storage(tmp_path, parameters, {"shards_at": {"place": "here"}}) == local


def test_equal_shards_that_are_elsewhere_are_measured_once(finished, tmp_path):
    """Sizes are those of the manifests, so nothing changes when the shards move."""
    ignored = shutil.ignore_patterns("mlflow*", "04_models", "05_reports")
    data = shutil.copytree(finished / "data", tmp_path / "data", ignore=ignored)
    before = sizes.measured(data)
    for place in SETS.values():
        keep_at(data / place, str(tmp_path / "store"))
    found = sizes.measured(data)
    assert found.places == (str(tmp_path / "store"),) and found.bytes == before.bytes and found.repeated == before.repeated
    assert 0.5 < found.repeated["labels"] <= 1
    sets = {name: ShardSet(data / place) for name, place in SETS.items()}
    samples = {name: sum(map(one.num_samples, one.splits())) for name, one in sets.items()}
    apart = found.apart({name: samples[name] * sum(of_set.values()) for name, of_set in found.bytes.items()})
    assert apart.shards == pytest.approx(sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.tar")))
    files = [path for place in SETS.values() for path in (data / place).rglob("*.facts.parquet")]
    assert apart.disk == pytest.approx(sum(path.stat().st_size for path in files))
    assert any(f"shards at {tmp_path / 'store'}" in line for line in sizes.table(found, 1000, 10, 0.1))
    assert not any("shards at" in line for line in sizes.table(before, 1000, 10, 0.1))
