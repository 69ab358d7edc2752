"""Shards in a bucket or a shared folder, under names that follow from their content."""

import hashlib
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from upath import UPath

from fourfold.data.codecs import encode
from fourfold.data.ingestion.card import all_sources
from fourfold.data.ingestion.croissant import croissant
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig
from fourfold.data.open_shards import OpenShard
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import CACHE_VARIABLE, HERE, PLACE_FILE, ShardStore, keep_at
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns, write_shard
from fourfold.data.tars import size_of
from fourfold.seeds import numpy_generator
from fourfold.storage import write_bytes
from fourfold_ops.errors import EXIT_DIFFERS
from pipelines.verify import verify
from tests.fourfold.data.crawls import members_of, write_tar

MODALITIES = ["caption", "tok_rgb"]
TIMEOUT = 120  # seconds


def columns(shard, word="caption"):
    rng = numpy_generator(0, "shards", shard)
    keys = [f"train-{shard}-{i}" for i in range(3)]
    return {
        "caption": [(key, f"{word} of {key}") for key in keys],
        "tok_rgb": [(key, rng.integers(0, 512, (1, 16))) for key in keys],
    }


def write_set(root, place, words=("caption", "caption")):
    """Write a set of two shards, as the stages do: what is there is kept."""
    keep_at(root, place)
    resumed = ResumedShards(root, MODALITIES)
    for index, word in enumerate(words):
        missing = resumed.missing("train", shard_name(index))
        write_columns(root, "train", shard_name(index), {m: columns(index, word)[m] for m in missing})
    finish_split(root, "train", MODALITIES)
    return ShardSet(root)


def samples_of(shards):
    return [(s["__key__"], s["caption"], s["tok_rgb"].tolist()) for s in shards.iterate("train", MODALITIES)]


@pytest.fixture
def place(request, tmp_path):
    return request.getfixturevalue("bucket").place if request.param == "bucket" else str(tmp_path / "store")


each_place = pytest.mark.parametrize("place", ["bucket", "folder"], indirect=True)


@each_place
def test_a_set_in_a_store_has_the_content_of_a_local_one(tmp_path, place):
    local, stored = write_set(tmp_path / "local", None), write_set(tmp_path / "stored", place)
    assert stored.digest() == local.digest() and samples_of(stored) == samples_of(local)
    # Manifests and facts are equal byte for byte; the shards are elsewhere, under the SHA-256 of their bytes
    tars = [path.read_bytes() for path in local.root.rglob("*.tar")]
    files = {path.relative_to(local.root): path.read_bytes() for path in local.root.rglob("*") if path.is_file()}
    kept = {path.relative_to(stored.root): path.read_bytes() for path in stored.root.rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix == ".tar"} == files.keys() - kept.keys()
    assert kept.keys() - files.keys() == {Path(PLACE_FILE)}
    assert all(content == files[path] for path, content in kept.items() if path.name not in (PLACE_FILE, "digests.json"))
    for content in tars:
        digest = hashlib.sha256(content).hexdigest()
        assert UPath(f"{place}/{digest[:2]}/{digest}.tar").read_bytes() == content
    assert len(list(UPath(place).glob("*/*"))) == len(tars) == 4
    # What reads one shard at a time finds it, too
    opened = OpenShard([(stored, MODALITIES[1:])], "train", shard_name(1))
    assert np.array_equal(opened.take(np.arange(3))["tok_rgb"], [value for _, value in columns(1)["tok_rgb"]])


def test_the_manifest_of_a_past_version_reads_what_it_named(tmp_path, bucket):
    """As `dvc pull` of a past commit: the small folder of the first version comes back."""
    first = write_set(tmp_path / "data", bucket.place)
    samples, digest = samples_of(first), first.digest()
    shutil.copytree(tmp_path / "data", tmp_path / "past")
    before = set(bucket.store.names())
    shutil.rmtree(tmp_path / "data")
    second = write_set(tmp_path / "data", bucket.place, ("caption", "another text"))
    assert second.digest() != digest and len(set(bucket.store.names()) - before) == 1  # equal shards are shared
    assert samples_of(second) != samples and before < set(bucket.store.names())
    past = ShardSet(tmp_path / "past")
    assert past.digest() == digest and samples_of(past) == samples
    for root in ("data", "past"):
        done = CliRunner().invoke(verify, [str(tmp_path / root / "train/caption/manifest.json")])
        assert done.exit_code == 0 and done.output.count("as recorded") == len(MODALITIES), done.output
    # The manifests may be in the bucket, too
    for path in (tmp_path / "past").rglob("*"):
        if path.is_file():
            name = path.relative_to(tmp_path / "past").as_posix()
            bucket.store.client.upload_file(str(path), bucket.store.bucket, f"past/{name}")
    assert samples_of(ShardSet(f"s3://{bucket.store.bucket}/past")) == samples


def test_work_that_resumes_uploads_nothing_again(tmp_path, bucket):
    keep_at(tmp_path, bucket.place)
    write_columns(tmp_path, "train", shard_name(0), columns(0))
    uploads = bucket.uploads()
    assert ResumedShards(tmp_path, MODALITIES).missing("train", shard_name(0)) == []
    write_set(tmp_path, bucket.place)
    assert bucket.uploads() == 2 * uploads == 4
    write_set(tmp_path, bucket.place)
    write_set(tmp_path / "again", bucket.place)  # another run that makes equal shards
    assert bucket.uploads() == 4


def test_a_process_that_is_killed_while_it_copies_leaves_no_object(tmp_path):
    place = tmp_path / "store"
    keep_at(tmp_path / "set", str(place))

    def die():
        def half(source, target):
            Path(target).write_bytes(Path(source).read_bytes()[:1000])
            os._exit(9)

        shutil.copyfile = half  # of the child only
        write_columns(tmp_path / "set", "train", shard_name(0), columns(0))

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join(TIMEOUT)
    assert child.exitcode == 9
    left = [path for path in place.rglob("*") if path.is_file()]
    assert left and all(path.name.startswith(".partial-") for path in left)
    assert ResumedShards(tmp_path / "set", MODALITIES).missing("train", shard_name(0)) == MODALITIES
    assert samples_of(write_set(tmp_path / "set", str(place))) == samples_of(write_set(tmp_path / "local", None))


def test_an_upload_that_arrives_damaged_is_an_error_and_the_shard_is_not_written(tmp_path, bucket, monkeypatch):
    keep_at(tmp_path, bucket.place)
    client = ShardStore(bucket.place).path("0" * 64).fs  # of this process
    with monkeypatch.context() as broken:
        broken.setattr(client, "put_file", lambda local, path: client.pipe_file(path, b"half of it"))
        with pytest.raises(ValueError, match=r"differs after its upload: SHA-256 .* expected"):
            write_shard(tmp_path / "train/caption/shard-00000.tar", [("a", "text")], "caption", store=ShardStore(bucket.place))
    assert ResumedShards(tmp_path, ["caption"]).missing("train", shard_name(0)) == ["caption"]
    write_set(tmp_path, bucket.place)  # replaces what is damaged
    ShardSet(tmp_path).verify()


@pytest.mark.parametrize("damage", ["gone", "flip"])
@each_place
def test_a_damaged_object_is_one_error_and_the_next_run_replaces_it(tmp_path, place, damage, caplog):
    shards = write_set(tmp_path / "set", place)
    wanted = samples_of(shards)
    info = shards.manifest("train", "caption").shards[1]
    path = ShardStore(place).path(info.sha256)
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(content)
    found = "missing" if damage == "gone" else f"damaged: SHA-256 {hashlib.sha256(content).hexdigest()}"
    for read in (shards.verify, lambda: samples_of(shards)):
        with pytest.raises(ValueError, match=f"{info.sha256[:2]}/{info.sha256}.tar") as error:
            read()
        message = str(error.value)
        assert found in message
        assert info.sha256 in message.split("expected")[1] and "kedro run --pipelines=STAGE" in message
        assert "train/caption/shard-00001.tar" in message and "\n" not in message
    done = CliRunner().invoke(verify, [str(tmp_path / "set")])
    assert done.exit_code == EXIT_DIFFERS and "tok_rgb: 6 samples" in done.output
    again = write_set(tmp_path / "set", place)
    assert samples_of(again) == wanted and "Making it again." in caplog.text
    again.verify()


def test_local_shards_move_to_a_store_and_from_one_to_another(tmp_path, bucket):
    shards = write_set(tmp_path / "set", None)
    wanted, digest = samples_of(shards), shards.digest()
    write_columns(tmp_path / "set", "train", shard_name(2), columns(2))  # of an interrupted run
    assert keep_at(tmp_path / "set", str(tmp_path / "store"))
    assert not list((tmp_path / "set").rglob("*.tar")) and samples_of(shards) == wanted
    assert ResumedShards(tmp_path / "set", MODALITIES).missing("train", shard_name(2)) == []
    assert keep_at(tmp_path / "set", bucket.place) and not keep_at(tmp_path / "set", bucket.place)
    assert not keep_at(tmp_path / "set", None)  # no setting: they stay where they are
    shutil.rmtree(tmp_path / "store")
    assert (samples_of(shards), shards.digest()) == (wanted, digest) and len(bucket.store.names()) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"set"}


def test_a_move_that_was_killed_is_completed(tmp_path, monkeypatch):
    shards, store = write_set(tmp_path / "set", None), str(tmp_path / "store")
    wanted = samples_of(shards)
    (tmp_path / "set/train/caption/shard-00001.tar").write_bytes(b"damaged")  # is made again, never moved
    put = ShardStore.put

    def two(self, shard, sha256):
        if len(list(Path(store).rglob("*.tar"))) == 2:
            raise KeyboardInterrupt
        put(self, shard, sha256)

    with monkeypatch.context() as killed:
        killed.setattr(ShardStore, "put", two)
        with pytest.raises(KeyboardInterrupt):
            keep_at(tmp_path / "set", store)
    assert len(list((tmp_path / "set").rglob("*.tar"))) == 1
    assert samples_of(write_set(tmp_path / "set", store)) == wanted


def files_of(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@each_place
def test_shards_that_are_brought_back_leave_the_folder_of_a_local_run(tmp_path, place, monkeypatch, caplog):
    local = write_set(tmp_path / "local", None)
    shards = write_set(tmp_path / "set", place)
    objects = {str(path): path.read_bytes() for path in UPath(place).glob("*/*")}
    with monkeypatch.context() as killed:  # after the first shard, then after the last one
        for count in (1, 4):

            def write(path, content, count=count):
                if len(list((tmp_path / "set").rglob("*.tar"))) == count:
                    raise KeyboardInterrupt
                write_bytes(path, content)

            killed.setattr("fourfold.data.shard_store.write_bytes", write)
            killed.setattr("fourfold.data.shard_store.forget_digests", lambda *_: write(None, None))
            with pytest.raises(KeyboardInterrupt):
                keep_at(tmp_path / "set", HERE)
            assert samples_of(shards) == samples_of(local)
    killed_at = (tmp_path / "set/train/caption/shard-00000.tar").stat().st_mtime_ns
    (tmp_path / "set/train/tok_rgb/shard-00001.tar").write_bytes(b"damaged meanwhile")
    assert keep_at(tmp_path / "set", HERE) and not keep_at(tmp_path / "set", HERE)
    assert files_of(tmp_path / "set") == files_of(tmp_path / "local")
    assert (tmp_path / "set/train/caption/shard-00000.tar").stat().st_mtime_ns == killed_at  # not written again
    assert {str(path): path.read_bytes() for path in UPath(place).glob("*/*")} == objects
    assert "their objects stay at" in caplog.text and samples_of(shards) == samples_of(local)
    # A kill between the record and the file; then the way back to the store
    (tmp_path / "set" / PLACE_FILE).write_text(json.dumps({"place": place}))
    assert keep_at(tmp_path / "set", HERE) and files_of(tmp_path / "set") == files_of(tmp_path / "local")
    assert samples_of(write_set(tmp_path / "set", place)) == samples_of(local) and not list((tmp_path / "set").rglob("*.tar"))


@pytest.mark.parametrize("target", [HERE, "elsewhere"])
def test_a_shard_whose_object_is_lost_is_made_again_where_the_set_moves(tmp_path, target, caplog):
    store = tmp_path / "store"
    shards = write_set(tmp_path / "set", str(store))
    wanted, victim = samples_of(shards), ShardStore(str(store)).path(shards.manifest("train", "caption").shards[1].sha256)
    victim.write_bytes(b"damaged")
    place = HERE if target == HERE else str(tmp_path / target)
    assert samples_of(write_set(tmp_path / "set", place)) == wanted
    assert "is damaged" in caplog.text and "Making it again" in caplog.text
    ShardSet(tmp_path / "set").verify()
    assert len(list((tmp_path / ("set" if target == HERE else target)).rglob("*.tar"))) == 4


class Away:
    """An object of a store that refuses."""

    def open(self, *arguments):
        raise PermissionError("no access")

    read_bytes = open


def test_a_store_that_is_away_stops_the_move_and_nothing_is_forgotten(tmp_path, monkeypatch):
    write_set(tmp_path / "set", str(tmp_path / "store"))
    before = files_of(tmp_path / "set")
    monkeypatch.setattr(ShardStore, "path", lambda self, sha256: Away())
    with pytest.raises(ValueError, match=r"cannot be read \(PermissionError: no access\)"):
        keep_at(tmp_path / "set", HERE)
    assert files_of(tmp_path / "set") == before


def test_a_cache_serves_epochs_and_never_hides_damage(tmp_path, bucket, monkeypatch, caplog):
    shards, cache = write_set(tmp_path / "set", bucket.place), tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    wanted = samples_of(shards)
    copies = sorted(path.name for path in cache.rglob("*.tar"))
    assert copies == sorted(name.rpartition("/")[2] for name in bucket.store.names())
    first = next(cache.rglob("*.tar"))
    first.write_bytes(b"damaged")
    assert samples_of(shards) == wanted and "changed after it was written" in caplog.text and len(first.read_bytes()) > 100
    for name in bucket.store.names():
        bucket.store.client.delete_object(Bucket=bucket.store.bucket, Key=name)
    assert samples_of(shards) == wanted
    with pytest.raises(ValueError, match="is missing"):  # the check is about the bucket
        shards.verify()


def test_a_damaged_or_lost_record_of_the_place_is_an_error_and_written_again(tmp_path, bucket):
    shards = write_set(tmp_path, bucket.place)
    wanted = samples_of(shards)
    for damage in (lambda path: path.write_text('{"place": "/elsewhere"}'), Path.unlink):
        damage(tmp_path / PLACE_FILE)
        for _ in range(2):  # nothing that was forgotten lets the next run make all shards again
            with pytest.raises(ValueError, match=r"shards_at.json .*expected.*dvc checkout --force"):
                keep_at(tmp_path, HERE)
        with pytest.raises(ValueError, match=r"shards_at.json .*expected.*dvc checkout --force"):
            shards.verify()
        assert samples_of(write_set(tmp_path, bucket.place)) == wanted
    assert bucket.uploads() == 4


@pytest.mark.parametrize("place", ["relative/folder", "ftp://host/x", "s3://", "memory://x"])
def test_a_place_that_cannot_keep_shards_is_an_error(tmp_path, place):
    with pytest.raises(ValueError, match=r"allowed: an absolute path, a bucket .*, or 'here' .*conf/\*/catalog.yml"):
        keep_at(tmp_path, place)


def test_a_store_that_refuses_is_an_error_that_names_the_object(tmp_path, bucket):
    with pytest.raises(ValueError, match=r"s3://nobody-has-this/.*cannot be written.*Check the address"):
        write_set(tmp_path, "s3://nobody-has-this/x")


@pytest.mark.parametrize("sizes", [[0], [1, 512, 513], [10_000] * 7, list(range(0, 9000, 300))])
def test_size_of_a_shard_follows_from_its_members(tmp_path, sizes):
    texts = [(f"key{row}", "x" * size) for row, size in enumerate(sizes)]
    write_shard(tmp_path / "shard-00000.tar", texts, "caption")
    assert (tmp_path / "shard-00000.tar").stat().st_size == size_of(len(encode("caption", text)) for _, text in texts)


def test_ingestion_into_a_bucket_gives_the_same_set_and_its_damage_is_repaired(tmp_path, bucket):
    write_tar(tmp_path / "00000.tar", members_of(range(40)))
    source = WebdatasetConfig(path=str(tmp_path / "00000.tar"))
    shares = {"val_share": 0.2, "test_share": 0.2, "samples_per_shard": 8}
    config = IngestionConfig(source=source, image_size=16, cleaning=CleaningConfig(min_side=16), **shares)
    local = ingest(config, 0, tmp_path / "local")
    stored = ingest(config, 0, tmp_path / "stored", shards_at=bucket.place)
    assert stored.digest() == local.digest() and not list((tmp_path / "stored/shards").rglob("*.tar"))
    report = ingestion_report(tmp_path / "stored")
    assert report == ingestion_report(tmp_path / "local")
    described = json.loads(croissant(config.card, all_sources(config), report, stored))["distribution"]
    tars = {one["contentUrl"]: one["sha256"] for one in described if one.get("encodingFormat") == "application/x-tar"}
    assert {f"s3://{bucket.store.bucket}/{name}" for name in bucket.store.names()} == tars.keys()
    assert all(digest in url for url, digest in tars.items())
    shutil.copytree(tmp_path / "stored", tmp_path / "back")
    ingest(config, 0, tmp_path / "back", shards_at=HERE)
    assert files_of(tmp_path / "back") == files_of(tmp_path / "local")
    uploads = bucket.uploads()
    victim = bucket.store.names()[0]
    bucket.store.client.put_object(Bucket=bucket.store.bucket, Key=victim, Body=b"damaged")
    ingest(config, 0, tmp_path / "stored", shards_at=bucket.place).verify()
    assert bucket.uploads() == uploads + 2  # the damage, and its repair
    # A finished local set moves without ingesting again
    before = (tmp_path / "local/ingestion_report.json").stat().st_mtime_ns
    moved = ingest(config, 0, tmp_path / "local", shards_at=bucket.place)
    assert moved.digest() == stored.digest() and not list(moved.root.rglob("*.tar"))
    assert ingest(config, 0, tmp_path / "local", shards_at=bucket.place).digest() == stored.digest()
    assert (tmp_path / "local/ingestion_report.json").stat().st_mtime_ns == before and bucket.uploads() == uploads + 2
