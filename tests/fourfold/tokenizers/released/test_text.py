"""4M's 30,000 entries: trained at that size, and the released JSON against the library that wrote it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fourfold.seeds import numpy_generator
from fourfold.tokenizers.released.text import RELEASED_TEXT, export_released_text, load_released_text
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import COCO_CLASSES, TextTokenizerConfig

SIDES = ("v0", "v1", "v2", "v3")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLAIN_WORDS = ["a", "man", "rides", "the", "##s", "##ing", "ride", "hot", "dog", "base", "##ball", ",", ".", "'", "-", "é"]
PLAIN_WORDS += [*LETTERS[1:], *(f"##{letter}" for letter in LETTERS)]


def made_by_the_library(path: Path, sides: tuple[str, ...] = SIDES) -> Tokenizer:
    """Write a file with few words like the reference's training, and return the library's tokenizer."""
    specials = [AddedToken(name, normalized=False) for name in ("[PAD]", "[UNK]", "[SOS]", "[EOS]")]
    specials += [AddedToken(f"[S_{i}]", single_word=True, normalized=False) for i in range(200)]
    specials += [AddedToken(f"{side}={i}", single_word=True, normalized=False) for side in sides for i in range(1000)]
    specials += [AddedToken(name, single_word=True, normalized=True) for name in COCO_CLASSES]
    entries = [*(token.content for token in specials), *PLAIN_WORDS]
    tokenizer = Tokenizer(models.WordPiece({entry: i for i, entry in enumerate(dict.fromkeys(entries))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(specials)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tokenizer.to_str(pretty=True))
    return tokenizer


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> tuple[TextTokenizer, Tokenizer, Path]:
    path = tmp_path_factory.mktemp("text") / "wordpiece.json"
    library = made_by_the_library(path)
    return load_released_text(path), library, path


def test_special_ids_match_the_release(released):
    text = released[0]
    assert (text.pad_id, text.unknown_id, text.sos_id, text.eos_id) == (0, 1, 2, 3)
    assert text.sentinel_ids == list(range(4, 204)) and text.vocabulary[5] == "[S_1]"
    places = {entry: number for number, entry in enumerate(text.vocabulary)}
    assert (places["v0=0"], places["v0=999"], places["v1=0"], places["v3=999"]) == (204, 1203, 1204, 4203)
    assert (places["airplane"], places["zebra"]) == (4204, 4283) and len(COCO_CLASSES) == 80
    assert list(COCO_CLASSES) == sorted(COCO_CLASSES)


words = st.sampled_from(
    [*COCO_CLASSES, "Man", "the", "RIDES", "hot dogs", "trains", "tv's", "TV¢", "stop-sign", "café", "!", "\t", "x" * 120]
)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(words | st.text(st.characters(codec="utf-8"), max_size=8), max_size=12).map(" ".join))
def test_captions_have_the_ids_of_the_tokenizers_library(released, text):
    ours, library, _ = released
    specials = {"[PAD]", "[UNK]", "[SOS]", "[EOS]", "[S_", "v0=", "v1=", "v2=", "v3="}
    if not any(special in text for special in specials):
        assert ours.encode_caption(text) == library.encode(text, add_special_tokens=False).ids


def test_class_names_are_one_token_only_as_whole_words(released):
    text = released[0]
    places = {entry: number for number, entry in enumerate(text.vocabulary)}
    assert text.encode_caption("a Hot Dog.") == [places["a"], places["hot dog"], places["."]]
    assert places["hot dog"] not in text.encode_caption("a hot dogs")
    assert text.decode_caption(text.encode_caption("a man rides the fire hydrant")) == "a man rides the fire hydrant"


def test_text_that_spells_a_special_token_stays_text(released):
    ours, library, _ = released
    assert library.encode("[S_1] v0=3", add_special_tokens=False).ids == [5, 207]
    assert all(token >= 4204 or token == ours.unknown_id for token in ours.encode_caption("[S_1] v0=3 [PAD]"))


def test_coordinate_names_of_the_first_release_are_read(released, tmp_path):
    made_by_the_library(tmp_path / "first.json", ("xmin", "ymin", "xmax", "ymax"))
    assert load_released_text(tmp_path / "first.json").vocabulary == released[0].vocabulary


def test_exported_file_is_read_by_the_library_and_loaded_again(released, tmp_path):
    ours, library, path = released
    export_released_text(ours, tmp_path / "exported.json")
    assert json.loads((tmp_path / "exported.json").read_text()) == json.loads(path.read_text())
    again = load_released_text(tmp_path / "exported.json")
    assert again.vocabulary == ours.vocabulary and again.config == ours.config
    text = "a man rides the hot dog [S_3]"
    assert Tokenizer.from_file(str(tmp_path / "exported.json")).encode(text).ids == library.encode(text).ids


def test_trained_tokenizer_has_30000_entries_given_enough_words(tmp_path):
    rng = numpy_generator(0, "words")
    letters = rng.integers(0, 26, (24_000, 6))
    corpus = ["".join(LETTERS[i] for i in row) for row in letters] + ["a person rides a horse near the hot dog"] * 3
    text = TextTokenizer.train(corpus, RELEASED_TEXT)
    assert text.vocabulary_size == 30_000 == len(set(text.vocabulary))
    assert text.vocabulary[4204:4284] == list(COCO_CLASSES)
    places = {entry: number for number, entry in enumerate(text.vocabulary)}
    assert text.encode_caption("person") == [places["person"]] == [4253]
    export_released_text(text, tmp_path / "trained.json")
    sentence = "a person rides a hot dog"
    assert Tokenizer.from_file(str(tmp_path / "trained.json")).encode(sentence).ids == text.encode_caption(sentence)


side = st.floats(0, 1)
instances = st.lists(
    st.builds(
        lambda x, y, name: {"box": [min(x), min(y), max(x), max(y)], "class_name": name, "score": 1.0},
        st.tuples(side, side),
        st.tuples(side, side),
        st.sampled_from(COCO_CLASSES),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(found=instances)
def test_boxes_survive_tokens_up_to_a_thousandth(released, found):
    text = released[0]
    tokens = text.encode_boxes(found)
    decoded = text.decode_boxes(tokens)
    assert sorted(text.encode_boxes(decoded)) == sorted(tokens) and len(tokens) == 5 * len(found)
    rounded = [{**one, "box": [round(value * 999) / 999 for value in one["box"]]} for one in found]
    as_rows = lambda boxes: sorted((*one["box"], one["class_name"]) for one in boxes)  # noqa: E731
    assert as_rows(decoded) == as_rows(rounded)
    assert all(204 + 1000 * n <= token < 1204 + 1000 * n for n in range(4) for token in tokens[n::5])


def test_coco_names_its_80_classes_in_settings():
    assert TextTokenizerConfig(object_classes="coco").object_classes == COCO_CLASSES


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("model", "type", "BPE", "type of its model is 'BPE'; 4M's text tokenizers have 'WordPiece'"),
        ("normalizer", "lowercase", False, "lowercase of its normalizer is False"),
        ("pre_tokenizer", "type", "Whitespace", "type of its pre_tokenizer is 'Whitespace'"),
    ],
)
def test_other_kinds_of_tokenizers_raise(released, tmp_path, part, key, value, message):
    stored = json.loads(released[2].read_text())
    stored[part][key] = value
    (tmp_path / "other.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message):
        load_released_text(tmp_path / "other.json")


def test_entries_in_another_order_raise(released, tmp_path):
    stored = json.loads(released[2].read_text())
    vocab = stored["model"]["vocab"]
    vocab["airplane"], vocab["v0=0"] = vocab["v0=0"], vocab["airplane"]
    (tmp_path / "other.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="added_tokens has"):
        load_released_text(tmp_path / "other.json")
    vocab["airplane"] = 10**6
    (tmp_path / "other.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="without gaps"):
        load_released_text(tmp_path / "other.json")
