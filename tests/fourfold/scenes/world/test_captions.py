import re
from collections import Counter

import numpy as np
import pytest

from fourfold.scenes.world import ANSWERS, COLORS, NUMBERS, SHAPES, ScenesConfig, caption, questions, render, scene
from fourfold.scenes.world.captions import left_to_right, relation

CONFIG = ScenesConfig()
SCENES = [scene(1, "val", index, CONFIG) for index in range(300)]
WEB = re.compile(rf"(large|small) ({'|'.join(COLORS)}) (striped )?({'|'.join(SHAPES)})")
TRANSFER = re.compile(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)}), (large|small), (plain|striped)")


def _described(one):
    return Counter((solid.size, solid.color, solid.texture, solid.shape) for solid in one.objects)


def test_web_captions_name_every_object_once_with_all_attributes():
    for one in SCENES:
        found = [
            (size, color, (texture or "plain").strip(), shape) for size, color, texture, shape in WEB.findall(caption(one))
        ]
        assert Counter(found) == _described(one)


def test_transfer_captions_count_and_list_objects_from_left_to_right():
    for one in SCENES:
        text = caption(one, "transfer")
        found = [(size, color, texture, shape) for color, shape, size, texture in TRANSFER.findall(text)]
        assert found == [(t.size, t.color, t.texture, t.shape) for t in left_to_right(one)]
        assert text.split()[0] == NUMBERS[len(one.objects)]


def test_captions_are_short_varied_and_deterministic():
    texts = [caption(one) for one in SCENES]
    assert all(len(text.split()) <= 40 and re.fullmatch(r"[a-z ]+", text) for text in texts)
    assert len(set(texts)) > 270
    openings = Counter(" ".join(text.split()[:2]) for text in texts)
    assert len(openings) >= 4
    assert texts == [caption(scene(1, "val", index, CONFIG)) for index in range(300)]
    with pytest.raises(ValueError, match="Unknown caption style 'poem'"):
        caption(SCENES[0], "poem")


def test_captions_of_four_objects_have_at_most_40_words():
    config = ScenesConfig(min_objects=4, max_objects=4, large=0.3, small=0.25)
    for index in range(100):
        assert len(caption(scene(0, "train", index, config)).split()) <= 40


def test_relations_in_captions_agree_with_the_image():
    batch = render(SCENES, CONFIG)
    middle_SK = (batch.boxes[..., 0] + batch.boxes[..., 2]) / 2
    seen = Counter()
    for row, one in enumerate(SCENES):
        if len(one.objects) != 2:
            continue
        words = caption(one)
        first, second = (next(i for i, t in enumerate(one.objects) if (t.color, t.shape) == found[1:4:2])
                         for found in ((m[0], m[1], m[2], m[3]) for m in WEB.findall(words)))  # fmt: skip
        place = re.search(r"left of|right of|in front of|behind", words).group()
        across = middle_SK[row, first] - middle_SK[row, second]
        along = one.objects[first].z - one.objects[second].z
        seen[place] += 1
        assert {"left of": across < 0, "right of": across > 0, "in front of": along < 0, "behind": along > 0}[place]
    assert len(seen) == 4


def test_swapping_two_objects_reverses_their_relation():
    opposite = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
    for one in SCENES:
        for a in one.objects:
            for b in one.objects:
                assert a is b or relation(a, b) == opposite[relation(b, a)]


def _answer(one, text):
    """Answer a question from the objects, by a method independent of the code that asks it."""
    solids, words = one.objects, text.rstrip("?").split()
    if words[0] == "how":
        return NUMBERS[len([t for t in solids if words[2] == "objects" or words[2] in (t.texture, t.size)])]
    if words[1] == "color":
        wanted = [t for t in solids if t.shape == words[-1] and (len(words) == 5 or t.size == words[-2])]
        return {t.color for t in wanted}.pop() if len(wanted) == 1 else None
    if words[-1] == "object":
        wanted = [t for t in solids if t.color == words[-2]]
        return wanted[0].shape if len(wanted) == 1 else None
    anchor = next(t for t in solids if (t.color, t.shape) == tuple(words[-2:]))
    side = next(w for w in ("left", "right", "front", "behind") if w in words)
    wanted = [t for t in solids if t is not anchor and relation(t, anchor) == side]
    return wanted[0].shape if len(wanted) == 1 else None


def test_every_question_has_exactly_one_correct_answer():
    kinds = Counter()
    for one in SCENES:
        asked = questions(one)
        assert len({question.text for question in asked}) == len(asked)
        for question in asked:
            kinds[question.kind] += 1
            assert question.answer in ANSWERS
            assert _answer(one, question.text) == question.answer, question
    assert set(kinds) == {"color", "shape", "count", "relation"}
    assert min(kinds.values()) > 200


def test_no_constant_answer_is_often_correct():
    answers = Counter(np.random.default_rng(0).choice(questions(one)).answer for one in SCENES)
    assert answers.most_common(1)[0][1] < 0.35 * len(SCENES)
