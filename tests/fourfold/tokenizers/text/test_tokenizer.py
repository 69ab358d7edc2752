"""Captions and boxes as tokens: encoding and decoding are inverse, and any ids can be decoded."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import UNK, TextTokenizerConfig, learn_vocabulary

CAPTIONS = ["a large red striped sphere left of a small blue box on a checkered floor", "there is a tiny cone, in front of it"]
CONFIG = TextTokenizerConfig(
    object_classes=("sphere", "box", "cylinder", "cone"), extra_texts=("how many cubes, spheres, cylinders and cones?",)
)
TEXT = TextTokenizer.train(CAPTIONS, CONFIG)
WORDS = sorted({word.strip(",") for caption in CAPTIONS for word in caption.split()})

side = st.floats(0, 1, allow_nan=False)
instance = st.builds(
    lambda x, y, name, score: {"box": [min(x), min(y), max(x), max(y)], "class_name": name, "score": score},
    st.tuples(side, side),
    st.tuples(side, side),
    st.sampled_from(CONFIG.object_classes),
    side,
)
instances = st.lists(instance, max_size=8)


def by_place(found: list[dict]) -> list:
    return sorted((tuple(entry["box"]), entry["class_name"]) for entry in found)


def test_ids_have_the_layout_of_4m():
    config = TextTokenizerConfig(
        vocabulary_size=6000, num_sentinels=200, coordinate_bins=1000, object_classes=tuple(f"c{i}" for i in range(80))
    )
    text = TextTokenizer.train(CAPTIONS, config)
    assert (text.pad_id, text.unknown_id, text.sos_id, text.eos_id) == (0, 1, 2, 3)
    assert text.vocabulary[:4] == ["[PAD]", "[UNK]", "[SOS]", "[EOS]"]
    assert (text.sentinel_ids[0], text.sentinel_ids[-1]) == (4, 203) and text.vocabulary[5] == "[S_1]"
    assert text.vocabulary.index("v0=0") == 204 and text.vocabulary.index("v3=999") == 4203
    assert text.vocabulary.index("c0") == 4204 and text.vocabulary.index("c79") == 4283


def test_vocabulary_is_deterministic_although_the_trainer_is_not():
    def bare() -> str:
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.train_from_iterator(CAPTIONS, trainers.WordPieceTrainer(vocab_size=200, show_progress=False))
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)

    assert len({bare() for _ in range(8)}) > 1  # its hash maps have new seeds each time, as in another process
    assert all(learn_vocabulary(CAPTIONS, CONFIG) == TEXT.vocabulary for _ in range(8))


@given(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join))
def test_captions_of_known_words_survive_word_for_word(caption):
    ids = TEXT.encode_caption(caption)
    assert TEXT.decode_caption(ids) == caption
    assert len(ids) == len(caption.split())


@given(st.text(max_size=60))
def test_text_never_becomes_a_special_sentinel_or_coordinate_token(caption):
    first_class = TEXT.vocabulary.index(CONFIG.object_classes[0])
    assert all(
        token == TEXT.unknown_id or first_class <= token < TEXT.vocabulary_size for token in TEXT.encode_caption(caption)
    )


def test_text_that_spells_a_special_token_stays_text():
    assert TEXT.unknown_id not in (ids := TEXT.encode_caption("[PAD] v0=3 [S_1]"))
    assert TEXT.decode_caption(ids).replace(" ", "") == "[pad]v0=3[s_1]"


def test_wordpiece_matches_the_library_on_a_fixed_example():
    pieces = [TEXT.vocabulary[token] for token in TEXT.encode_caption("Spheres, ZQ")]
    assert pieces == ["spheres", ",", "z", "##q"]
    assert isinstance(TEXT._wordpiece, Tokenizer)


@given(instances)
def test_boxes_survive_rounded_to_bins_and_then_exactly(found):
    last = CONFIG.coordinate_bins - 1
    rounded = [entry | {"box": [round(value * last) / last for value in entry["box"]]} for entry in found]
    tokens = TEXT.encode_boxes(found)
    decoded = TEXT.decode_boxes(tokens)
    assert by_place(decoded) == by_place(rounded)
    # rounding may turn the order of two that are nearly as far from the corner
    assert sorted(rows_of(TEXT.encode_boxes(decoded))) == sorted(rows_of(tokens))


def rows_of(tokens: list[int]) -> list[list[int]]:
    return [tokens[start : start + 5] for start in range(0, len(tokens), 5)]


@given(instances)
def test_boxes_are_sorted_by_corner_distance_before_rounding(found):
    ordered = sorted(found, key=lambda entry: entry["box"][0] ** 2 + entry["box"][1] ** 2)
    assert TEXT.encode_boxes(found) == [token for entry in ordered for token in TEXT.encode_boxes([entry])]


@settings(max_examples=200)
@given(st.lists(st.integers(-3, TEXT.vocabulary_size + 5), max_size=30), instances)
def test_any_ids_decode_to_upright_boxes_and_skip_noise(noise, found):
    noise = [token for token in noise if token != TEXT.eos_id]
    whole = TEXT.encode_boxes(found)
    boxes = TEXT.decode_boxes(noise + [TEXT.pad_id] * 5 + whole)
    assert all(0 <= x <= u <= 1 and 0 <= y <= v <= 1 for x, y, u, v in (entry["box"] for entry in boxes))
    assert by_place(boxes[len(boxes) - len(found) :]) == by_place(TEXT.decode_boxes(whole))


def test_ids_after_the_end_are_ignored():
    box = TEXT.encode_boxes([{"box": [0, 0, 1, 1], "class_name": "cone"}])
    assert TEXT.decode_boxes([TEXT.eos_id, *box]) == []
    assert TEXT.decode_caption([*TEXT.encode_caption("red sphere"), TEXT.eos_id, *TEXT.encode_caption("blue")]) == "red sphere"


def test_boxes_with_the_highest_scores_are_kept_if_too_many():
    scores = [0.2, 0.9, 0.5]
    found = [{"box": [score / 4, 0, 1, 1], "class_name": "box", "score": score} for score in scores]
    kept = TEXT.decode_boxes(TEXT.encode_boxes(found, max_boxes=2))
    assert by_place(kept) == by_place(TEXT.decode_boxes(TEXT.encode_boxes([found[1], found[2]])))


def test_loaded_tokenizer_gives_the_same_ids(tmp_path):
    TEXT.save(tmp_path / "text.json")
    loaded = TextTokenizer.load(tmp_path / "text.json")
    assert loaded.vocabulary == TEXT.vocabulary and loaded.config == CONFIG
    assert loaded.encode_caption(CAPTIONS[0]) == TEXT.encode_caption(CAPTIONS[0])


def test_errors_name_the_received_and_the_allowed_values():
    with pytest.raises(ValueError, match=r"Unknown object class 'zebra'. Known: box, cone, cylinder, sphere"):
        TEXT.encode_boxes([{"box": [0, 0, 1, 1], "class_name": "zebra"}])
    with pytest.raises(ValueError, match="xmin, ymin, xmax, ymax"):
        TEXT.encode_boxes([{"box": [0, 0, float("nan"), 1], "class_name": "box"}])
    with pytest.raises(ValueError, match="Raise it"):
        TextTokenizer.train(CAPTIONS, TextTokenizerConfig(vocabulary_size=300))
    with pytest.raises(ValueError, match="num_sentinels is 8; sequences of 48"):
        TextTokenizerConfig(num_sentinels=8)
