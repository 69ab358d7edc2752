"""Images from captions of COCO 2014: which captions are chosen, what is compared with what, and how much is kept in memory."""

import re
import weakref
from collections import Counter

import numpy as np
import pytest

from fourfold.evaluation.benchmarks import BENCHMARKS
from fourfold.evaluation.benchmarks.official import Run, score_official
from fourfold.evaluation.benchmarks.sets.drawn_captions import draw_captions, read_generation_captions
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.metrics.running import Bootstrap
from tests.fourfold.evaluation.benchmarks import tiny_sets
from tests.fourfold.evaluation.benchmarks.tiny_sets import SIDE, STEP, Given


class Painter(Given):
    """Paints the image of a caption of `tiny_sets.coco_2014`, and reads no captions back."""

    def __init__(self):
        super().__init__()
        self.calls, self.alive, self.most = [], 0, 0

    def predict(self, conditions, targets, *, preset="greedy", seed=0, seeds=None):
        if targets == ["caption"]:
            return {"caption": ["nothing"] * len(conditions["rgb"])}
        self.calls += [(caption, one, preset) for caption, one in zip(conditions["caption"], seeds, strict=True)]
        levels = [int(caption.split()[1]) // 3 % 8 + 1 for caption in conditions["caption"]]
        made = np.stack([np.full((SIDE, SIDE, 3), STEP * level, np.uint8) for level in levels])
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(made, self._gone)
        return {"rgb": made}

    def _gone(self):
        self.alive -= 1


class Seeing:
    def encode_image(self, rgb):
        gray = rgb.mean(axis=(1, 2, 3))
        return None, np.stack([gray, np.ones(len(rgb))], axis=1)

    def encode_text(self, texts):
        return np.ones((len(texts), 2))


def score(path, seed=0, folder=None, **settings):
    config = BenchmarkConfig(reader="coco_generation", path=path, **{"split": "val2014", "batch_size": 2, **settings})
    model = Painter()
    run = Run(model, config, Bootstrap(replicates=10), Seeing(), seed=seed, folder=folder)
    return score_official(BENCHMARKS.get("coco_generation"), run), model


def test_captions_are_drawn_as_documented():
    """One caption of each of so many different images, all equally likely, whatever the order of the annotations."""
    captions = [{"image_id": image, "id": 5 * image + n} for image in range(3000) for n in range(5)]
    drawn = draw_captions(captions, "val2014", 2000)
    images = [each["image_id"] for each in drawn]
    assert len(drawn) == len(set(images)) == 2000
    places = Counter(each["id"] % 5 for each in drawn)
    assert min(places.values()) > 330 and max(places.values()) < 470  # 400 each
    assert np.mean(images) == pytest.approx(1500, abs=60)  # a random order: also the first ones are a sample of all
    assert np.mean(images[:500]) == pytest.approx(1500, abs=120)
    assert draw_captions(captions[::-1], "val2014", 2000) == drawn
    assert draw_captions(captions, "val2014", 50) == drawn[:50]
    assert draw_captions(captions, "val2017", 50) != drawn[:50]
    # They must never change: numbers of different versions would not be comparable
    assert [each["id"] for each in drawn[:5]] == [5950, 11452, 3283, 5363, 6258]


def test_coco_2014_is_scored_on_drawn_captions_with_their_own_images(tmp_path):
    tiny_sets.coco_2014(tmp_path)
    result, model = score(tmp_path, folder=tmp_path / "out")
    captions = [caption for caption, *_ in model.calls]
    assert sorted(int(caption.split()[1]) for caption in captions) == [1, 4, 7, 10, 13, 16, 19]  # those that have captions
    assert result["samples"] == 7 and result["complete"] is False  # 30,000 are
    assert result["scores"]["frechet_encoder"]["value"] == pytest.approx(0, abs=1e-6)  # the real images of the same captions
    keys = [str(100 * int(image) + int(n)) for image, n in (caption.split()[1:] for caption in captions)]
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(keys)
    assert "one of each of 30,000 images of val2014, drawn with a fixed seed" in result["details"]["captions"]
    _, other = score(tmp_path, seed=5)
    assert [caption for caption, *_ in other.calls] == captions  # of every run
    few, _ = score(tmp_path, max_samples=3)
    assert few["samples"] == 3


def test_images_are_drawn_with_seeds_of_their_own(tmp_path):
    tiny_sets.coco_2014(tmp_path)
    _, model = score(tmp_path, preset="caption_to_rgb")
    _, alone = score(tmp_path, preset="caption_to_rgb", batch_size=1)
    _, other = score(tmp_path, preset="caption_to_rgb", seed=1)
    assert model.calls == alone.calls and {preset for *_, preset in model.calls} == {"caption_to_rgb"}
    seeds, others = ([seed for _, seed, _ in each.calls] for each in (model, other))
    assert len({*seeds, *others}) == 14
    with pytest.raises(ValueError, match=r"caption_to_rbg.*caption_to_rgb"):
        BenchmarkConfig(reader="coco_generation", path=tmp_path, preset="caption_to_rbg")


def test_a_list_of_captions_replaces_the_draw(tmp_path):
    tiny_sets.coco_2014(tmp_path)
    chosen = tmp_path / "mine.txt"
    chosen.write_text("1003\n101\n\n1000\n")  # two captions of an image
    result, model = score(tmp_path, caption_ids=chosen, folder=tmp_path / "out")
    assert [caption for caption, *_ in model.calls] == ["image 10 3", "image 1 1", "image 10 0"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1003.png", "101.png", "1000.png"}
    assert re.match(r"those of mine\.txt, SHA-256 [0-9a-f]{64}", result["details"]["captions"])
    assert result["scores"]["frechet_encoder"]["value"] == pytest.approx(0, abs=1e-6)
    for text, message in (
        ("101\nx1", r"mine\.txt: 'x1' is no number\. Allowed: ids of captions, not of images, one per line, each once"),
        ("101\n10", r"mine\.txt: '10' is no id of a caption\. .* Use those of .*captions_val2014\.json\."),
        ("101\n99900", r"mine\.txt: '99900' is no id of a caption"),  # of an image that is not listed
        ("101\n101", r"mine\.txt: '101' is repeated"),
        ("", r"mine\.txt has no ids\. Write one .* or remove caption_ids"),
    ):
        chosen.write_text(text)
        with pytest.raises(ValueError, match=message):
            score(tmp_path, caption_ids=chosen)
    with pytest.raises(ValueError, match=r"none\.txt cannot be read as text: it does not exist"):
        score(tmp_path, caption_ids=tmp_path / "none.txt")


def test_of_2017_the_first_caption_counts(tmp_path):
    tiny_sets.coco(tmp_path)
    found = list(read_generation_captions(tmp_path, "val2017"))
    assert [(each.key, each.truth) for each in found] == [("7", ["A dog on grass."]), ("8", ["Two people walking"])]


def test_generated_images_are_not_kept(tmp_path):
    tiny_sets.coco_2014(tmp_path, images=60)
    result, model = score(tmp_path)
    assert result["samples"] == 60 and len(model.calls) == 60
    assert model.most <= 8  # of 30 batches: the present one, the last one, and those of the six examples in the gallery
