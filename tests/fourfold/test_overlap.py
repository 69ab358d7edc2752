"""Reading, work and writing at the same time: order, bound, errors, and the bytes of labeling."""

import threading

import numpy as np
import pytest
import torch

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.labelers import LabelingConfig, label_shards, labeling, train_teachers
from fourfold.metric_log import NullMetricLog
from fourfold.overlap import overlapped
from tests.fourfold.killing import files_of

LIMIT = 60  # seconds; much more than any wait here takes


def test_results_come_in_order_and_each_step_sees_the_items_in_order():
    seen = {"read": [], "work": [], "write": []}

    def step(name):
        return lambda item, *content: seen[name].append(item) or (content[0] if content else 0) + item

    found = list(overlapped(range(1, 6), step("read"), step("work"), step("write")))
    assert found == [3 * item for item in range(1, 6)] and all(order == [1, 2, 3, 4, 5] for order in seen.values())
    assert list(overlapped([], step("read"), step("work"), step("write"))) == []


def test_the_next_item_is_read_and_the_one_before_is_written_during_the_work():
    is_read, is_working, may_write = [threading.Event() for _ in range(4)], threading.Event(), threading.Event()

    def read(item):
        is_read[item].set()
        return item

    def work(item, content):
        if item == 1:  # item 0 waits to be written, item 2 is read
            assert is_read[2].wait(LIMIT)
            is_working.set()
            may_write.set()
        return content

    def write(item, done):
        assert item or (may_write.wait(LIMIT) and is_working.is_set())
        return done

    assert list(overlapped(range(3), read, work, write)) == [0, 1, 2]


def test_no_more_than_three_items_are_held():
    held, most, lock = set(), [0], threading.Lock()

    def read(item):
        with lock:
            held.add(item)
            most[0] = max(most[0], len(held))

    def write(item, done):
        with lock:
            held.discard(item)

    list(overlapped(range(30), read, lambda item, content: None, write))
    assert most[0] <= 3


@pytest.mark.parametrize("failing", ["read", "work", "write"])
def test_an_error_is_raised_and_what_was_worked_on_before_is_written(failing):
    written = []

    def step(name):
        def do(item, *content):
            if name == failing and item == 3:
                raise RuntimeError(f"{name} fails")
            if name == "write":
                written.append(item)
            return item

        return do

    with pytest.raises(RuntimeError, match=f"{failing} fails"):
        list(overlapped(range(6), step("read"), step("work"), step("write")))
    assert [item for item in written if item < 3] == [0, 1, 2]
    assert not any(thread.name.startswith(("read_", "write_")) for thread in threading.enumerate())


def test_labels_have_the_same_bytes_with_and_without_overlap_and_processes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    shards = ShardSet(tmp_path / "shards")
    for number in range(4):
        keys = [f"s{number}-{row}" for row in range(5)]
        images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
        columns = {"rgb": zip(keys, images, strict=True), "caption": zip(keys, ["x"] * 5, strict=True)}
        write_columns(shards.root, "val", shard_name(number), columns)
    finish_split(shards.root, "val", ["rgb", "caption"])
    config = LabelingConfig(labelers={"canny_edge": "canny_edges", "color_palette": "color_palettes"}, batch_size=2)
    teachers = train_teachers(shards, ShardSet(tmp_path / "none"), config, 0, tmp_path / "teachers", NullMetricLog())
    used, threads = [], torch.get_num_threads()
    found = {}
    for name, number in (("overlap", 1), ("processes", 2), ("one by one", 1)):
        way = one_by_one if name == "one by one" else overlapped
        monkeypatch.setattr(labeling, "overlapped", lambda *steps, way=way, name=name: used.append(name) or way(*steps))
        torch.set_num_threads(number)
        try:
            found[name] = files_of(label_shards(shards, teachers, config, tmp_path / name).root)
        finally:
            torch.set_num_threads(threads)
    assert used == ["overlap", "one by one"]
    assert len(found["overlap"]) > 8 and found["overlap"] == found["processes"] == found["one by one"]


def one_by_one(items, read, work, write):
    for item in items:
        yield write(item, work(item, read(item)))
