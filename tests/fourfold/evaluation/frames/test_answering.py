"""Folders of frames: order, files, resuming, what is skipped, and the budget."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.evaluation.frames import answering
from fourfold.evaluation.frames.answering import Frames, answer_frames
from fourfold.evaluation.frames.predicting import FrameSettings, predict_frame
from fourfold.evaluation.frames.timing import Times
from fourfold.generation.sparse_depth import read_kitti_depth
from fourfold.modalities.class_table import ClassTable
from tests.support.tiny_any_to_any import CLASSES, tiny_any_to_any

SETTINGS = FrameSettings(view="windows")
NAMES = ("day/frame9.png", "day/frame10.png", "night/1.jpg", "2.PNG")


@pytest.fixture(scope="module")
def model():
    return tiny_any_to_any()


@pytest.fixture
def frames(tmp_path) -> Path:
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 52, 3), dtype=np.uint8)
        for folder in ("frames", "lidar"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "frames" / name)
        if name != "night/1.jpg":
            depth = np.where(pixels[..., 0] > 128, 256 * (seed + 3), 0).astype(np.uint16)
            Image.fromarray(depth).save((tmp_path / "lidar" / name).with_suffix(".png"))
    (tmp_path / "frames/broken.png").write_bytes(b"none")
    (tmp_path / "frames/notes.txt").write_text("notes")
    return tmp_path / "frames"


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_frame_has_files_in_its_size_and_a_line(model, frames, tmp_path):
    table = ClassTable(names=CLASSES)
    counts, times = answer_frames(model, Frames(frames, tmp_path / "out", SETTINGS), table)
    assert (counts["answered"], counts["not an image"], counts["skipped: image unreadable"]) == (4, 1, 1) and len(times) == 4
    assert [row["file_name"] for row in rows(tmp_path / "out/day/metadata.jsonl")] == ["frame9.png", "frame10.png"]
    for name in NAMES:
        (row,) = (r for r in rows(tmp_path / "out" / Path(name).parent / "metadata.jsonl") if r["file_name"] == Path(name).name)
        folder, rgb = tmp_path / "out" / Path(name).parent, np.asarray(Image.open(frames / name))
        expected = predict_frame(model, rgb, SETTINGS).values
        depth = read_kitti_depth(folder / row["depth"], (20, 52))
        np.testing.assert_allclose(depth, expected["depth"], atol=0.5 / 256 + 1e-6)
        assert (
            np.array_equal(np.asarray(Image.open(folder / row["semseg"])), expected["semseg"]) and row["det"] == expected["det"]
        )
        with Image.open(folder / row["overlay"]) as overlay:
            assert overlay.size == (52, 40) and json.loads(overlay.text["fourfold"])["model"] == model.digest()
        assert row["ms"]["total"] == pytest.approx(row["ms"]["read"] + row["ms"]["predict"], abs=0.002) and "late" not in row
    (skipped,) = rows(tmp_path / "out/skipped.jsonl")
    assert skipped == {"file_name": "broken.png", "reason": "image unreadable"}
    stored = json.loads((tmp_path / "out/times.json").read_text())
    assert stored["frames"] == 4 and stored["machine"]["precision"] == "fp32" and "late" not in stored


def test_killed_command_continues_with_equal_files(model, frames, tmp_path, monkeypatch):
    def files(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}

    def lines(folder):
        return [{k: v for k, v in row.items() if k != "ms"} for path in sorted(folder.rglob("m*.jsonl")) for row in rows(path)]

    answer_frames(model, Frames(frames, tmp_path / "whole", SETTINGS))
    finish = answering._Writer.finish

    def killed(self, relative, *others):
        if relative.name == "frame10.png":  # after its maps, before its line
            with (self.folder / "day/metadata.jsonl").open("a") as file:
                file.write('{"file_name": "frame1')
            raise KeyboardInterrupt
        finish(self, relative, *others)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(answering._Writer, "finish", killed)
        answer_frames(model, Frames(frames, tmp_path / "parts", SETTINGS))
    counts, times = answer_frames(model, Frames(frames, tmp_path / "parts", SETTINGS))
    assert (counts["answered before"], counts["answered"]) == (3, 2) and len(times) == 2  # with broken.png
    assert files(tmp_path / "parts") == files(tmp_path / "whole") and lines(tmp_path / "parts") == lines(tmp_path / "whole")
    counts, times = answer_frames(model, Frames(frames, tmp_path / "parts", SETTINGS))
    assert counts["answered before"] == 5 and not len(times)
    with pytest.raises(ValueError, match="view differ"):
        answer_frames(model, Frames(frames, tmp_path / "parts", FrameSettings(view="crop")))


def test_sparse_depth_is_used_where_there_is_a_file(model, frames, tmp_path):
    Image.new("L", (52, 20)).save(tmp_path / "lidar/day/frame10.png")
    (tmp_path / "frames/broken.png").unlink()
    lidar = tmp_path / "lidar"
    counts, _ = answer_frames(model, Frames(frames, tmp_path / "out", SETTINGS, lidar))
    assert (counts["answered"], counts["without sparse depth"]) == (3, 1)
    assert counts["skipped: its sparse depth cannot be used"] == 1
    (row,) = rows(tmp_path / "out/day/metadata.jsonl")
    expected = predict_frame(model, np.asarray(Image.open(frames / "day/frame9.png")), SETTINGS,
                             read_kitti_depth(lidar / "day/frame9.png"))  # fmt: skip
    assert row["sparse_tokens"] == [expected.num_given, expected.num_tokens] and expected.num_given > 0
    depth = read_kitti_depth(tmp_path / "out/day/depth/frame9.png")
    np.testing.assert_allclose(depth, expected.values["depth"], atol=0.5 / 256 + 1e-6)
    assert "sparse_tokens" not in rows(tmp_path / "out/night/metadata.jsonl")[0]
    (skipped,) = rows(tmp_path / "out/day/skipped.jsonl")
    assert skipped["file_name"] == "frame10.png" and "depth needs 16 bits" in skipped["reason"]


def test_one_frame_may_be_a_file(model, frames, tmp_path):
    one = Frames(frames / "day/frame9.png", tmp_path / "out", SETTINGS, tmp_path / "lidar/day/frame9.png")
    counts, _ = answer_frames(model, one)
    assert counts == {"answered": 1} and (tmp_path / "out/depth/frame9.png").is_file()
    assert answer_frames(model, one)[0] == {"answered before": 1}


def test_late_frames_are_counted_and_answered(model, frames, tmp_path):
    counts, times = answer_frames(model, Frames(frames, tmp_path / "strict", SETTINGS, budget_ms=1e-6))
    assert counts["late"] == counts["answered"] == times.late == 4
    assert all(row["late"] for row in rows(tmp_path / "strict/day/metadata.jsonl"))
    counts, times = answer_frames(model, Frames(frames, tmp_path / "patient", SETTINGS, budget_ms=1e9))
    assert "late" not in counts and counts["answered"] == 4 and times.summary()["late_share"] == 0
    assert not any(row["late"] for row in rows(tmp_path / "patient/day/metadata.jsonl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_ms": 0.0}, "The budget of a frame is 0 ms; it must be above 0"),
        ({"sparse": Path("lidar/2.png")}, "must both be folders, or both files"),
        ({"folder": Path("frames/out")}, "is inside of frames, so results would be read as frames"),
    ],
)
def test_impossible_requests_are_refused(frames, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        Frames(**{"images": Path("frames"), "folder": Path("out")} | changes)


def test_a_model_without_a_label_is_refused_before_anything_is_written(model, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(type(model), "lacks", lambda self, source, target: "no tokenizer" if target == "det" else "")
    with pytest.raises(ValueError, match="Frames cannot be answered with det: no tokenizer"):
        answer_frames(model, Frames(frames, tmp_path / "out", SETTINGS))
    assert not (tmp_path / "out").exists()


def test_percentiles_are_those_of_numpy():
    values = np.random.default_rng(0).gamma(2, 20, 501).round(2)
    times = Times(budget_ms=60)
    late = [times.add({"total": value}) for value in values]
    assert late == (values > 60).tolist() and times.late == sum(late)
    for percent in (50, 95):
        assert times.percentile("total", percent) == pytest.approx(np.percentile(values, percent, method="inverted_cdf"))
    text = "\n".join(times.lines())
    assert f"{times.late:,} of 501 frames late ({100 * np.mean(late):.1f} %)" in text and "threads" in text


def test_memory_of_times_does_not_grow_with_the_frames():
    times = Times()
    for _ in range(3):
        for value in np.linspace(1, 50, 200):
            times.add({"total": float(value)})
    assert len(times) == 600 and len(times._counts["total"]) <= 200
