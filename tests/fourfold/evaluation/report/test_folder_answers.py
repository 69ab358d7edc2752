"""Answers about a folder of images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.data.codecs import decode
from fourfold.evaluation.report import folder_answers
from fourfold.evaluation.report.folder_answers import FolderRequest, answer_folder
from fourfold.generation.any_to_any import AnyToAny
from fourfold.model.fourm import FourM

sys.path.insert(0, str(Path(__file__).parents[2] / "generation"))
from counting import CONFIG, CountingTokenizers

REQUEST = FolderRequest(["caption", "depth"])
NAMES = ("a.png", "b.jpg", "trip/c.PNG", "trip/day two/d.webp")


@pytest.fixture
def model() -> AnyToAny:
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for seed, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("notes")
    (folder / "link.png").symlink_to(folder / "a.png")
    return folder


def rows(folder: Path) -> dict[str, dict]:
    tables = sorted(folder.rglob("metadata.jsonl"))
    lines = [(path.parent, json.loads(line)) for path in tables for line in path.read_text(encoding="utf-8").splitlines()]
    return {(parent / line["file_name"]).relative_to(folder).as_posix(): line for parent, line in lines}


def test_every_image_has_the_answers_that_it_has_alone(model, images, tmp_path):
    counts = answer_folder(model, images, tmp_path / "out", REQUEST)
    found = rows(tmp_path / "out")
    assert set(found) == set(NAMES)
    for name, row in found.items():
        alone = model.predict({"rgb": folder_answers.prepare(model, "rgb", images / name)[None]}, REQUEST.targets)
        assert row["text"] == alone["caption"][0]
        stored = decode("depth", (tmp_path / "out" / Path(name).parent / row["depth"]).read_bytes())
        assert np.array_equal(stored, alone["depth"][0])
    (skipped,) = (tmp_path / "out/skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["file_name"] == "broken.png" and "unreadable" in json.loads(skipped)["reason"]
    assert (counts["answered"], counts["not an image"]) == (4, 2)
    assert [count for reason, count in counts.items() if reason.startswith("skipped: ")] == [1]


@pytest.mark.parametrize("at_once", [1, 3])
def test_killed_call_continues_with_equal_files(model, images, tmp_path, monkeypatch, at_once):
    def files(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    answer_folder(model, images, tmp_path / "whole", REQUEST)
    monkeypatch.setattr(folder_answers, "AT_ONCE", at_once)
    append, written = folder_answers.append_row, []

    def killed(path, row):
        if len(written) == 3:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write('{"file_name": "b.jp')  # cut off
            raise KeyboardInterrupt
        append(path, row)
        written.append(row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder_answers, "append_row", killed)
        answer_folder(model, images, tmp_path / "parts", REQUEST)
    counts = answer_folder(model, images, tmp_path / "parts", REQUEST)
    assert counts["answered before"] == 3 and counts["answered"] == 2
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_another_request_or_model_is_refused(model, images, tmp_path):
    answer_folder(model, images, tmp_path / "out", REQUEST)
    before = rows(tmp_path / "out")
    with pytest.raises(ValueError, match="out has answers to another request: seed differ"):
        answer_folder(model, images, tmp_path / "out", FolderRequest(REQUEST.targets, seed=1))
    with pytest.raises(ValueError, match="model differ"):
        answer_folder(AnyToAny(FourM(CONFIG, seed=3), CountingTokenizers()), images, tmp_path / "out", REQUEST)
    assert rows(tmp_path / "out") == before


def test_captions_are_read_as_an_image_folder(model, images, tmp_path):
    from fourfold.data.ingestion.sources.caption_tables import METADATA_TABLES

    answer_folder(model, images, tmp_path / "out", FolderRequest(["caption"], caption="a ___ b"))
    assert folder_answers.TABLE_FILE in METADATA_TABLES
    assert all(set(row) == {"file_name", "text"} for row in rows(tmp_path / "out").values())
