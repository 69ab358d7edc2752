"""Tars in an object store: S3's protocol on loopback, with the settings of conf/s3."""

from pathlib import Path

import pytest
import s3fs
import yaml
from object_store import KEYS, object_store

from fourfold.data.ingestion.ingest import IngestionConfig, expected_samples, ingest, ingestion_report
from tests.fourfold.data.crawls import members_of, write_tar

CONF = Path(__file__).parents[5] / "conf"


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A bucket with three tars of 20 captioned images each, the last one cut off."""
    with object_store() as store:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": store.address}.items():
            monkeypatch.setenv(name, value)
        for number in range(3):
            path = write_tar(tmp_path / f"{number:05d}.tar", members_of(range(20 * number, 20 * number + 20)))
            content = path.read_bytes() if number < 2 else path.read_bytes()[:20_000]
            store.client.put_object(Bucket=store.bucket, Key=f"crawl/part/{path.name}", Body=content)
        yield store


def settings(path: str) -> IngestionConfig:
    values = yaml.safe_load((CONF / "s3/parameters.yml").read_text())["ingestion"]
    changes = {"image_size": 16, "val_share": 0.2, "test_share": 0.2, "max_drop_share": 0.5, "leakage": None}
    return IngestionConfig.model_validate(
        {**values, **changes, "source": {**values["source"], "path": path}, "cleaning": {**values["cleaning"], "min_side": 16}}
    )


def test_tars_of_a_bucket_are_ingested(store, tmp_path):
    crawl = f"s3://{store.bucket}/crawl"
    assert expected_samples(settings(crawl)) is None
    shards = ingest(settings(crawl), 0, tmp_path / "out")
    report = ingestion_report(tmp_path / "out")["by_source"]["source"]
    assert 40 < report["kept"] < 60 and sum(report["archives_dropped"].values()) == 1
    captions = {one["caption"] for split in shards.splits() for one in shards.iterate(split, ["caption"])}
    assert {f"photo number {n}" for n in range(40)} <= captions
    # The same tars in a folder give the same images, and a pattern chooses some
    some = ingest(settings(f"{crawl}/**/{{00000..00001}}.tar"), 0, tmp_path / "some")
    local = ingest(settings(str(tmp_path / "{00000..00001}.tar")), 0, tmp_path / "local")
    assert some.digest() == local.digest() and sum(map(some.num_samples, some.splits())) == 40
    # A changed object is noticed by the next run
    other = write_tar(tmp_path / "other.tar", members_of(range(100, 103)))
    store.client.put_object(Bucket=store.bucket, Key="crawl/part/00001.tar", Body=other.read_bytes())
    s3fs.S3FileSystem.clear_instance_cache()  # as in another process: within one, listings are kept
    again = ingest(settings(f"{crawl}/**/{{00000..00001}}.tar"), 0, tmp_path / "some")
    assert sum(map(again.num_samples, again.splits())) == 23


def test_a_missing_bucket_is_one_clear_error(store):
    with pytest.raises(ValueError, match="s3://nobody/crawl"):
        expected_samples(settings("s3://nobody/crawl"))


def test_the_other_settings_are_those_of_photographs():
    photos, s3 = (yaml.safe_load((CONF / name / "parameters.yml").read_text()) for name in ("photos", "s3"))
    assert {name: values for name, values in s3.items() if name != "ingestion"} == {
        name: values for name, values in photos.items() if name != "ingestion"
    }
