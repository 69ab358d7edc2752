import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fourfold.data.shards import ShardSet
from fourfold.scenes.world import ScenesConfig, caption, render, scene, write_crawl, write_truth

CONFIG = ScenesConfig(num_samples={"val": 23}, images_per_shard=10)
KEYS = [f"val-{index:06d}" for index in range(23) if index not in (0, 13)]


def test_a_crawl_has_the_layout_of_img2dataset(tmp_path):
    paths = write_crawl(tmp_path, "val", 0, CONFIG)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["val/00000.tar", "val/00001.tar", "val/00002.tar"]
    with tarfile.open(paths[1]) as archive:
        names = archive.getnames()
        assert names[:3] == ["val-000010.png", "val-000010.txt", "val-000010.json"]
        content = {name: archive.extractfile(name).read() for name in names[:3]}
    one = scene(0, "val", 10, CONFIG)
    assert content["val-000010.txt"].decode() == caption(one)
    image = np.asarray(Image.open(io.BytesIO(content["val-000010.png"])))
    assert (image == render([one], CONFIG).rgb[0]).all()
    metadata = json.loads(content["val-000010.json"])
    assert metadata == {"key": "val-000010", "caption": caption(one), "status": "success", "width": 64, "height": 64}


def test_equal_settings_give_equal_bytes_and_complete_shards_are_kept(tmp_path):
    one, two = (write_crawl(tmp_path / name, "val", 0, CONFIG) for name in "ab")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    before = [p.stat().st_mtime_ns for p in one]
    one[1].unlink()
    assert write_crawl(tmp_path / "a", "val", 0, CONFIG) == one
    after = [p.stat().st_mtime_ns for p in one]
    assert (before[0], before[2]) == (after[0], after[2])
    assert one[1].read_bytes() == two[1].read_bytes()


def test_another_seed_gives_another_crawl(tmp_path):
    (before,) = {path.read_bytes() for path in write_crawl(tmp_path, "val", 0, CONFIG)[:1]}
    (after,) = {path.read_bytes() for path in write_crawl(tmp_path, "val", 1, CONFIG)[:1]}
    assert before != after


def test_truth_is_aligned_with_the_kept_keys(tmp_path):
    write_truth(tmp_path, "val", KEYS, 0, CONFIG)
    truth = ShardSet(tmp_path)
    truth.verify()
    assert truth.modalities("val") == ["attributes", "depth", "det", "normal", "semseg"]
    assert truth.keys("val") == KEYS
    assert list(truth.samples_by_shard("val").values()) == [10, 10, 1]


def test_stored_truth_is_the_rendered_truth(tmp_path):
    write_truth(tmp_path, "val", KEYS, 0, CONFIG, samples_per_shard=21)
    samples = list(ShardSet(tmp_path).iterate("val", ["attributes", "depth", "det", "normal", "semseg"]))
    scenes = [scene(0, "val", int(key[4:]), CONFIG) for key in KEYS]
    batch = render(scenes, CONFIG)
    for row, (sample, one) in enumerate(zip(samples, scenes, strict=True)):
        assert sample["depth"].dtype == np.float16
        assert sample["depth"].astype(np.float32) == pytest.approx(batch.depth[row], rel=1e-3)
        assert (sample["semseg"] == batch.semseg[row]).all()
        normal = sample["normal"] / 127.5 - 1
        assert np.abs(normal - batch.normal[row]).max() < 0.5 / 127.5 + 1e-3
        attributes, instances = sample["attributes"], sample["det"]["instances"]
        assert [(t["shape"], t["color"]) for t in attributes["objects"]] == [(t.shape, t.color) for t in one.objects]
        assert [instance["class_name"] for instance in instances] == [solid.shape for solid in one.objects]
        assert [instance["box"] for instance in instances] == [entry["box"] for entry in attributes["objects"]]
        assert attributes["transfer_caption"] == caption(one, "transfer")
        areas = batch.num_pixels[row, : len(one.objects)]
        assert attributes["main_object"] == areas.argmax()


def test_keys_of_other_splits_and_unknown_splits_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="not a key of split 'val'"):
        write_truth(tmp_path, "val", ["test-000001"], 0, CONFIG)
    with pytest.raises(ValueError, match="num_samples has no size for split 'test'"):
        write_crawl(tmp_path, "test", 0, CONFIG)
