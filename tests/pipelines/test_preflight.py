"""Checks before a run: sources, sizes of splits, free space."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kedro.config import OmegaConfigLoader

from fourfold.data import shard_store
from fourfold.data.ingestion.ingest import expected_samples
from pipelines import places, preflight, sources
from pipelines.parameters import Parameters
from pipelines.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "conf/base/parameters.yml").read_text(encoding="utf-8"))
ALL = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")


def parameters(source: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    ingestion = {"source": source or {"kind": "scenes"}, "supplement": {"kind": "scenes"} if source else None}
    return BASE | {"ingestion": ingestion} | {name: BASE[name] | section for name, section in sections.items()}


def photos(folder: Path, count: int) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:03}.jpg").touch()
        (folder / f"{number:03}.txt").touch()
    return {"kind": "folder", "path": str(folder)}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a project folder on a disk with plenty of space; `disk.free` changes it."""
    for name in ("data", ".dvc"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    disk = SimpleNamespace(free=10**12)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: disk)
    return disk


def test_missing_benchmark_is_found_before_a_stage_runs(tmp_path):
    found = dict(OmegaConfigLoader(str(ROOT / "conf"), env="imagenet", **CONFIG_LOADER_ARGS)["parameters"])
    found["finetuning"] = found["finetuning"] | {"benchmarks": {"imagenet": {"path": str(tmp_path)}}}
    with pytest.raises(ValueError, match=rf"no train or .* in {tmp_path}\. Get the data from the ImageNet page"):
        preflight.check(ALL, found)
    preflight.check(("evaluation",), found)


def test_missing_source_is_found_before_a_stage_runs(tmp_path):
    for name in ("source", "supplement"):
        with pytest.raises(ValueError, match=f"ingestion.{name}.path '/no/such/folder' does not exist"):
            sources.check_paths({name: {"path": "/no/such/folder"}})
    for allowed in (str(tmp_path), "~", "/data/*.tar", "https://example.org/a.tar"):
        sources.check_paths({"source": {"path": allowed}})
    preflight.check(("evaluation",), parameters({"kind": "folder", "path": "/no/such/folder"}))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://example.org/a", "is a URL"),
        ("empty", "holds no .* file"),
        ("*.png", "holds no .* file"),
        ("a.jpg", "is a file"),
    ],
)
def test_source_that_cannot_be_opened_is_found_before_a_stage_runs(project, path, message):
    Path("empty").mkdir()
    Path("a.jpg").touch()
    with pytest.raises(ValueError, match=message):
        preflight.check(ALL, parameters({"kind": "folder", "path": path}))


@pytest.mark.parametrize("path", ["empty", "*.tar", "other.zip", "memory://no-such-bucket/crawl", "s9://bucket/{0..9}.tar"])
def test_tars_that_cannot_be_opened_are_found_before_a_stage_runs(project, path):
    Path("empty").mkdir()
    Path("other.zip").touch()
    with pytest.raises(ValueError, match=r"source.path .* (holds no .* file|cannot be listed)"):
        preflight.check(ALL, parameters({"kind": "webdataset", "path": path}))


def test_folder_is_counted_as_it_will_be_split(tmp_path):
    """The splits that ingestion makes of the same images; each image counts, with or without a caption."""
    values = Parameters.model_validate(parameters(photos(tmp_path / "photos", 300)))
    sizes = expected_samples(values.ingestion)
    assert sum(sizes[split] for split in ("train", "val", "test")) == 300
    assert 0 < sizes["val"] < 40 and 0 < sizes["test"] < 40  # 5 % each
    assert sizes["annotated"] == 2000  # of the supplement, whose other splits do not count


def test_tars_are_not_counted(project):
    Path("a.tar").touch()
    for path in ("a.tar", "*.tar", "{a,b}.tar"):
        preflight.check(ALL, parameters({"kind": "webdataset", "path": path}))


def test_supplement_of_a_source_that_cannot_be_counted_is_checked_too(project):
    Path("a.tar").touch()
    Path("empty").mkdir()
    given = parameters({"kind": "webdataset", "path": "a.tar"})
    given["ingestion"]["supplement"] = {"kind": "folder", "path": "empty"}
    with pytest.raises(ValueError, match=r"'empty' holds no .* file"):
        preflight.check(ALL, given)


def test_default_and_its_environments_are_large_enough(project):
    preflight.check(ALL, parameters())


@pytest.mark.parametrize(
    ("count", "sections", "stages", "message"),
    [
        (30, {}, ALL, r"split 'train' gets \d+ samples at most, and pretraining.batch_size needs 32"),
        (30, {}, ("ingestion", "tokenizer_training"), None),
        (
            10,
            {},
            ("ingestion", "tokenizer_training"),
            r"the 1024 codes of tokenizer_training.visual.rgb.codebook_size needs 16",
        ),
        (2, {}, ("ingestion",), r"split '(val|test)' gets 0 samples at most, and one sample needs 1"),
        (100, {"finetuning": {"num_labels": [601]}}, ALL, "split 'transfer_train' gets 600 .* finetuning.num_labels needs 601"),
        (100, {"finetuning": {"num_labels": [601]}}, ("ingestion", "pretraining"), None),
        (20, {}, ("tokenizer_training", "ingestion"), "and tokenizer_training.visual.depth.batch_size needs 24"),
        (
            100,
            {"tokenizer_training": {"diffusion": {"rgb": {"batch_size": 101}}}},
            ALL,
            "split 'train' gets 85 .*and tokenizer_training.diffusion.rgb.batch_size needs 101",
        ),
        (100, {}, ALL, None),
    ],
)
def test_split_that_is_too_small_for_a_setting_is_refused(project, count, sections, stages, message, monkeypatch):
    if message is None or "'(val" not in message:  # few images seldom reach the small splits
        monkeypatch.setattr(preflight, "HASHED_SPLITS", ("train",))
        monkeypatch.setattr(preflight, "MIN_CODEBOOK_USE", 0)
    given = parameters(photos(Path("photos"), count), **sections)
    if message is None:
        preflight.check(stages, given)
        return
    with pytest.raises(ValueError, match=message) as caught:
        preflight.check(stages, given)
    assert str(caught.value).endswith("nothing was changed.")


def test_forty_photographs_are_refused_because_so_few_for_validation_never_use_enough_codes(project):
    given = parameters(photos(Path("photos"), 40))
    message = r"split 'val' gets \d samples at most, and a rgb/codebook_use of 0.2 of the 1024 codes of \S+ needs 4"
    with pytest.raises(ValueError, match=message):
        preflight.check(ALL, given)
    preflight.check(("ingestion",), parameters(photos(Path("photos"), 40)))
    preflight.check(ALL, parameters(photos(Path("more"), 150)))


@pytest.mark.parametrize(("key", "val", "needed"), [("rgb", 3, 4), ("rgb@32", 12, 13), ("clip_global", 12, 13)])
def test_validation_split_is_as_large_as_the_codes_of_each_kind_of_tokenizer_need(key, val, needed):
    vector = {"vector": {"num_blocks": 2, "width": 256}, "codebook_size": 64}
    visual = {"clip_global": vector} if key == "clip_global" else {"rgb": {"codebook_size": 1024}}
    settings = {"visual": visual, "resolutions": {"rgb": [32]} if key == "rgb@32" else {}}
    labelers = {"labelers": BASE["pseudo_labeling"]["labelers"] | {"clip_global": "mini_clip_global"}}
    values = Parameters.model_validate(parameters(tokenizer_training=settings, pseudo_labeling=labelers))
    sizes = {"train": 1000, "test": 1}
    preflight.check_sizes(("tokenizer_training",), values, sizes | {"val": needed})
    with pytest.raises(ValueError, match=f"and a {key}/codebook_use of 0.2 of .* needs {needed}"):
        preflight.check_sizes(("tokenizer_training",), values, sizes | {"val": val})


def test_codebook_use_is_that_of_the_expectation_and_rounding_refuses_nothing():
    entry = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text(encoding="utf-8"))["tokenizer_metrics"]
    (expectation,) = entry["validator"]["options"]["expectations"]
    assert 'metric=="codebook_use"' in expectation["row_condition"]
    assert expectation["min_value"] == preflight.MIN_CODEBOOK_USE
    for codes in range(1, 2000):
        needed = preflight._rounded_up(preflight.MIN_CODEBOOK_USE * codes)
        assert needed / codes >= 0.2 > (needed - 1) / codes


@pytest.mark.parametrize("environment", ["smoke", "long", "extended", "label_efficiency"])
def test_shipped_environments_are_large_enough(project, environment):
    loader = OmegaConfigLoader(str(ROOT / "conf"), env=environment, **CONFIG_LOADER_ARGS)
    preflight.check(ALL, loader["parameters"])


def test_disk_that_is_too_small_is_refused(project):
    values = Parameters.model_validate(parameters())
    sizes = expected_samples(values.ingestion)
    needed = 2 * preflight.needed_bytes(ALL, values, sizes)  # data/ and the cache
    project.free = needed
    preflight.check(ALL, parameters())
    project.free = needed - 1000
    with pytest.raises(ValueError, match=r"at least 1\.\d GB for 12,600 samples in data and .dvc, and 1\.\d GB are free"):
        preflight.check(ALL, parameters())
    Path("data/present").write_bytes(bytes(1000))  # will be replaced
    preflight.check(ALL, parameters())


def test_shards_that_go_to_a_bucket_need_no_disk(project):
    values = Parameters.model_validate(parameters())
    sizes = expected_samples(values.ingestion)
    staged = preflight.needed_bytes(["ingestion"], values, sizes)
    local, once = (preflight.needed_bytes(ALL, values, sizes, label_copies=copies) for copies in (2, 1))
    assert staged < once < local
    folder, cache = str(Path("data/x").absolute()), "in data and .dvc"
    for place, needed, where in (
        (None, 2 * local, cache),
        ("here", 2 * local, cache),
        ("s3://bucket/x", staged, "in data while images are ingested"),
        (folder, once, f"in data and {folder}"),
    ):
        catalog = {"shards_at": {"type": "fourfold_ops.datasets.PlaceDataset", "place": place}}
        project.free = needed
        preflight.check(ALL, parameters(), catalog)
        project.free = needed - 1
        with pytest.raises(ValueError, match=f"needs at least .* for 12,600 samples {where}, and"):
            preflight.check(ALL, parameters(), catalog)
    # Without a setting, as in a clone, a set that is in a bucket stays there
    project.free = staged + 1000
    Path("data/01_raw/shards").mkdir(parents=True)
    Path("data/01_raw/shards/shards_at.json").write_text('{"place": "s3://bucket/x"}')
    preflight.check(ALL, parameters(), {"shards_at": {"place": None}})
    with pytest.raises(ValueError, match="needs at least"):
        preflight.check(ALL, parameters(), {"shards_at": {"place": "here"}})


def test_names_of_the_store_are_those_of_the_library():
    assert (places.HERE, places.PLACE_FILE) == (shard_store.HERE, shard_store.PLACE_FILE)


def test_estimate_is_below_a_measured_run():
    """Bytes of data/ after `make run ENV=smoke`: shards, labels and tokens (2.2 + 25.6 + 2.1 MB, without truth and crawl)."""
    smoke = yaml.safe_load((ROOT / "conf/smoke/parameters.yml").read_text(encoding="utf-8"))
    source = BASE["ingestion"]["source"] | smoke["ingestion"]["source"]
    values = Parameters.model_validate(parameters(source) | {"ingestion": {"source": source}})
    needed = preflight.needed_bytes(ALL, values, expected_samples(values.ingestion))
    assert 0.8 * 29.9e6 < needed < 29.9e6


def test_labels_that_are_not_stored_need_no_disk():
    def needed(**keep):
        values = Parameters.model_validate(parameters() | {"pseudo_labeling": BASE["pseudo_labeling"] | keep})
        return preflight.needed_bytes(ALL, values, sizes), values

    sizes = {"annotated": 100, "train": 1000, "val": 50}
    (everything, values), (some, _) = needed(), needed(keep="sample", sample_size=400)
    (nothing, _), (enough, _) = needed(keep="none"), needed(keep="sample", sample_size=5000)
    pixels = values.ingestion.image_size**2
    per_sample = 2 * sum(preflight._member(name, pixels) for name in values.pseudo_labeling.labelers)
    assert everything - some == 600 * per_sample and everything - nothing == 1000 * per_sample and enough == everything


def test_model_is_published_last():
    from pipelines.pipeline_registry import register_pipelines

    for name in ("__default__", "evaluation"):
        assert register_pipelines()[name].nodes[-1].name == "publish_model"


def test_a_missing_model_to_start_from_is_refused_before_any_work(project):
    settings = parameters(pretraining={"start_from": "nowhere"})
    with pytest.raises(ValueError, match=r"pretraining.start_from is nowhere, which does not exist"):
        preflight.check(("pretraining",), settings)
    preflight.check(("evaluation",), settings)
    preflight.check(("pretraining",), parameters(pretraining={"start_from": "data"}))


def test_a_labeler_without_its_network_is_refused_before_any_work(project):
    labelers = {"semseg": {"kind": "packaged", "folder": "nowhere"}}
    given = parameters(pseudo_labeling={"labelers": labelers})
    with pytest.raises(
        ValueError, match=r"pseudo_labeling.labelers.semseg: nowhere/deeplab_voc has no network. Run `make teach"
    ):
        preflight.check(("pseudo_labeling",), given)
    preflight.check(("evaluation",), given)
