"""The program that tampers with results: its changes are real, and readers refuse each of them."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from fourfold.data.shards import finish_split, shard_name, write_columns
from fourfold.digests import record_digests, write_recorded, write_recorded_json

sys.path.insert(0, str(Path(__file__).parent))
from tampering import DIGESTS_FILE, KINDS, Finished, Tampering, apply, choose, judge, products


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every form: a set of shards, weights beside settings, metrics."""
    project = tmp_path_factory.mktemp("project")
    labels, tokenizer, reports = (project / "data" / name for name in ("02_labels/shards", "03_tokens/rgb", "05_reports"))
    for shard in range(2):
        keys = [f"val-{shard}-{index}" for index in range(3)]
        columns = {"caption": [(key, f"a {key}") for key in keys], "rgb": [(key, np.zeros((8, 8, 3), "u1")) for key in keys]}
        write_columns(labels, "val", shard_name(shard), columns)
    finish_split(labels, "val", ["caption", "rgb"])
    write_recorded(tokenizer, "weights.safetensors", bytes(range(256)))
    write_recorded_json(tokenizer, "settings.json", {"name": "rgb", "grid": [4, 4], "classes": None})
    for name in ("metrics", "gallery"):
        write_recorded_json(reports, f"{name}.json", {name: {"value": 0.5, "is_measured": True}, "history": [1, 2.5]})
    return project


def test_every_change_is_refused_by_readers_until_it_is_undone(project, tmp_path):
    finished, kinds = Finished(project, tmp_path / "work", "smoke"), set()
    names = sorted(finished.wanted)
    for seed in range(80):
        rng = random.Random(seed)
        tampering = choose(names, rng)
        if not apply(tampering, finished.work / "data", rng):
            continue  # two equal files, for example
        assert products(finished.work / "data") != finished.wanted and finished.remaining(), tampering
        assert any(finished.is_refused(name) for name in (tampering.name, tampering.other) if name), tampering
        kinds.add(tampering.kind)
        finished.restore()
        assert products(finished.work / "data") == finished.wanted and not finished.is_refused(tampering.name)
    assert kinds == set(KINDS)


def test_a_change_with_a_fitting_digest_is_found_to_be_silent(project, tmp_path):
    finished = Finished(project, tmp_path / "work", "smoke")
    reports = finished.work / "data/05_reports"
    (reports / "gallery.json").write_text("{}")
    record_digests(reports, "gallery.json")
    assert not finished.is_refused("05_reports/gallery.json")
    assert finished.remaining() == [f"05_reports/{DIGESTS_FILE}", "05_reports/gallery.json"]


@pytest.mark.parametrize(
    ("endings", "is_restored", "outcome"),
    [
        ([0], True, "healed"),
        ([0], False, "silent"),
        ([1, 0], True, "refused"),
        ([1, 0], False, "silent"),
        ([1, 1], False, "stuck"),
    ],
)
def test_a_refusal_that_every_run_repeats_is_stuck(project, tmp_path, monkeypatch, endings, is_restored, outcome):
    finished, codes = Finished(project, tmp_path / "work", "smoke"), iter(endings)
    tampering = Tampering("truncate", "05_reports/gallery.json")
    assert apply(tampering, finished.work / "data", random.Random(0))

    def run(stage: str) -> tuple[int, str]:
        if not (code := next(codes)) and is_restored:
            finished.restore()
        return code, "gallery.json is damaged" if code else ""

    monkeypatch.setattr(finished, "run", run)
    assert judge(finished, tampering)[0] == outcome and next(codes, None) is None
