"""Every sequence encoded and decoded: exact where it is stored exactly, within half a bin where it is rounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data import codecs
from fourfold.modalities.keypoints import JOINTS
from fourfold.modalities.metadata import METADATA_NUMBERS, METADATA_TYPES, Range, metadata_bins, metadata_value
from fourfold.model.config import ArchitectureConfig
from fourfold.pretraining.pretrain import model_config
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.text.sequences import SEQUENCE_FORMATS, sequence_format
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet

SENTENCES = ["a human with a polygon at a point", "none of the pose is global", "shape and camera", "a red sphere"] * 3
RELEASED = TextTokenizer.train(SENTENCES, TextTokenizerConfig(vocabulary_size=30_000, coordinate_bins=1000, num_sentinels=200))
SMALL = TextTokenizer.train(SENTENCES, TextTokenizerConfig(coordinate_bins=64))

shares = st.floats(0, 1)
colors = st.lists(st.tuples(*[st.integers(0, 255)] * 3).map(list), min_size=1, max_size=7)
metadata = st.dictionaries(
    st.sampled_from(list(METADATA_TYPES)), st.one_of(st.integers(0, 2000), st.floats(-5, 300)), max_size=21
)
bodies = st.fixed_dictionaries(
    {
        "box": st.lists(shares, min_size=4, max_size=4),
        "pose_tokens": st.lists(st.integers(0, 1023), min_size=8, max_size=8),
        "global_orient": st.lists(st.floats(-1, 1), min_size=9, max_size=9),
        "camera": st.lists(st.floats(-1, 19), min_size=3, max_size=3),
        "betas": st.lists(st.floats(-3, 3), min_size=10, max_size=10),
    }
)


def words(text: TextTokenizer, ids: list[int]) -> str:
    return " ".join(text.vocabulary[token] for token in ids)


def test_metadata_is_written_as_in_the_release():
    values = {"brightness": 255, "original_width": 640, "caption_n_words": 12, "occlusion_score": 0.1, "aesthetic_score": 5.2}
    written = words(RELEASED, sequence_format("metadata", RELEASED, 40).encode(values))
    assert written == "v1=0 v0=20 v1=3 v0=12 v1=10 v0=49 v1=18 v0=19 v1=20 v0=1"  # in the order of the numbers
    assert len(METADATA_TYPES) == 21 and METADATA_NUMBERS["geometric_complexity"] == 17


@given(metadata)
def test_metadata_survive_within_half_a_bin_and_then_exactly(values):
    for text in (RELEASED, SMALL):
        form = sequence_format("metadata", text, 42)
        found = form.decode(form.encode(values))
        assert found.keys() == values.keys()
        assert form.decode(form.encode(found)) == found
        for name, value in found.items():
            if isinstance(bins := METADATA_TYPES[name], Range):
                inside = min(max(values[name], bins.low), bins.high)
                assert abs(value - inside) <= bins.width / 2 + 1e-9


@given(st.permutations(list(METADATA_TYPES)))
def test_order_of_metadata_does_not_change_their_values(order):
    form = sequence_format("metadata", RELEASED, 42)
    values = {name: METADATA_TYPES[name].value(1) for name in METADATA_TYPES}
    pairs = [form.encode({name: values[name]}) for name in order]
    assert form.decode([token for pair in pairs for token in pair]) == form.decode(form.encode(values))


def test_every_bin_of_every_type_has_a_distinct_value():
    for name, bins in METADATA_TYPES.items():
        for place in range(bins.num_bins or 64):
            assert bins.index(bins.value(place)) == place
            assert metadata_value(METADATA_NUMBERS[name], place) == (name, bins.value(place))


def test_large_counts_use_the_last_bin_and_unknown_types_raise():
    assert metadata_bins({"caption_n_chars": 500}, 64) == [(2, 63)]
    with pytest.raises(ValueError, match="Did you mean 'brightness'"):
        metadata_bins({"brihgtness": 1}, 64)
    with pytest.raises(ValueError, match="needs 50 bins"):
        sequence_format("metadata", TextTokenizer.train(SENTENCES, TextTokenizerConfig(coordinate_bins=32)), 40)


@given(colors)
def test_colors_survive_exactly_with_256_bins_and_within_half_a_bin_otherwise(palette):
    value = {str(len(palette)): palette}
    exact, coarse = (sequence_format("color_palette", text, 22) for text in (RELEASED, SMALL))
    assert exact.decode(exact.encode(value)) == value
    assert words(RELEASED, exact.encode(value)[:2]) == f"v1={len(palette)} v0={palette[0][0]}"
    found = coarse.decode(coarse.encode(value))
    np.testing.assert_allclose(found[str(len(palette))], palette, atol=255 / 63 / 2 + 0.5)
    assert coarse.decode(coarse.encode(found)) == found


def test_generator_draws_a_palette_and_none_takes_the_largest():
    value = {str(size): [[size, 0, 0]] * size for size in range(1, 8)}
    form = sequence_format("color_palette", RELEASED, 22)
    assert form.decode(form.encode(value)) == {"7": value["7"]}
    rng = np.random.default_rng(0)
    lengths = [next(iter(form.decode(form.encode(value, rng)))) for _ in range(700)]
    assert {size: lengths.count(size) > 60 for size in lengths} == dict.fromkeys("1234567", True)


@settings(max_examples=40)
@given(st.lists(bodies, max_size=3), st.integers(0, 99))
def test_poses_survive_within_half_a_bin_in_any_block_order(people, seed):
    form = sequence_format("human_poses", RELEASED, 275)
    ids = form.encode({"instances": people}, np.random.default_rng(seed))
    assert len(ids) == (39 * len(people) or 1)  # `human`, 4 sides, and blocks of 9, 10, 4 and 11
    found = form.decode(ids)
    assert len(found["instances"]) == len(people)
    for one, truth in zip(found["instances"], people, strict=True):
        assert one["pose_tokens"] == truth["pose_tokens"]
        for field, width in (("box", 1), ("global_orient", 2), ("camera", 20), ("betas", 6)):
            np.testing.assert_allclose(one[field], truth[field], atol=width / 999 / 2 + 1e-9)
    assert form.decode(form.encode(found)) == found


def test_poses_are_written_as_in_the_release():
    person = {"box": [0, 0.5, 1, 1], "pose_tokens": [0, 511, 512, 1023, 1, 2, 3, 4], "global_orient": [-1, 0, 1] * 3}
    person |= {"camera": [-1, 0, 19], "betas": [-3, 0, 3, 0, 0, 0, 0, 0, 0, 0]}
    written = words(RELEASED, sequence_format("human_poses", RELEASED, 275).encode({"instances": [person]}))
    assert written.startswith("human v0=0 v1=500 v2=999 v3=999 pose v0=0 v0=511 v1=0 v1=511 v0=1")
    assert "global v0=0 v0=500 v0=999" in written and "camera v0=0 v0=50 v0=999" in written
    assert "shape v0=0 v0=500 v0=999 v0=500" in written
    assert words(RELEASED, sequence_format("human_poses", RELEASED, 275).encode({"instances": []})) == "none"


people = st.fixed_dictionaries(
    {
        "box": st.lists(shares, min_size=4, max_size=4),
        "points": st.dictionaries(st.sampled_from(JOINTS), st.lists(shares, min_size=2, max_size=2)),
    }
)


@settings(max_examples=60)
@given(st.lists(people, max_size=3), st.integers(0, 99))
def test_joints_survive_within_half_a_bin_in_any_order(truth, seed):
    form = sequence_format("keypoints", RELEASED, 200)
    ids = form.encode({"instances": truth}, np.random.default_rng(seed))
    assert len(ids) == sum(4 + 3 * len(person["points"]) for person in truth)
    found = form.decode(ids)["instances"]
    assert [person["points"].keys() for person in found] == [person["points"].keys() for person in truth]
    for one, person in zip(found, truth, strict=True):
        np.testing.assert_allclose(one["box"], person["box"], atol=0.5 / 999 + 1e-9)
        for joint, point in person["points"].items():
            np.testing.assert_allclose(one["points"][joint], point, atol=0.5 / 999 + 1e-9)
    assert form.decode(form.encode({"instances": found})) == {"instances": found}


def test_how_joints_are_written_and_what_is_left_out():
    person = {"box": [0, 0.5, 1, 1], "points": {"right_ankle": [1, 0.5], "nose": [0, 1]}}
    form = sequence_format("keypoints", RELEASED, 55)
    written = "v0=0 v1=500 v2=999 v3=999 v2=0 v0=0 v1=999 v2=16 v0=999 v1=500"
    assert words(RELEASED, form.encode({"instances": [person]})) == written
    assert form.encode({"instances": []}) == []
    assert form.fits({"instances": [person] * 5}) and not form.fits({"instances": [person] * 6})  # 10 tokens each
    assert words(RELEASED, form.encode({"instances": [person] * 6})) == " ".join([written] * 5)
    with pytest.raises(ValueError, match="has 54 tokens; a person needs 55"):
        sequence_format("keypoints", RELEASED, 54)
    for wrong in ({"box": [0, 0, 1], "points": {}}, {"box": [0, 0, 1, 1], "points": {"nose": [1]}}, {"foo": 1}, [1]):
        with pytest.raises(ValueError, match=r"is no person\. Allowed: .*nose"):
            form.encode({"instances": [wrong]})
    with pytest.raises(ValueError, match=r"Unknown joint 'left_elbo'\. Did you mean 'left_elbow'"):
        form.encode({"instances": [person | {"points": {"left_elbo": [0, 0]}}]})
    # 1) A joint without its y, one that is repeated, and an index that no joint has
    box, nose = form.ids([(0, 0), (1, 0), (2, 9), (3, 9)]), form.ids([(2, 0), (0, 0), (1, 999)])
    broken = form.ids([(2, 3), (0, 7)]) + nose + form.ids([(2, 0), (0, 5), (1, 5), (2, 17), (0, 5), (1, 5)])
    (found,) = form.decode(nose + box[:2] + box + broken)["instances"]
    assert found["points"] == {"nose": [0, 1]}


@given(st.lists(st.integers(0, 1023), min_size=16, max_size=16), st.integers(0, 99))
def test_masks_that_contain_a_query_point_are_decoded(codes, seed):
    left = {"polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "box": [0, 0, 0.5, 1], "tokens": codes}
    form = sequence_format("sam_instance", RELEASED, 290)
    ids = form.encode({"instances": [left]}, np.random.default_rng(seed))
    found = form.decode(ids)["instances"]
    assert found in ([], [{"box": [0, 0, 0.5, 1], "tokens": codes}])  # a point may miss it: then `none` is said
    seen = words(RELEASED, ids)
    assert seen.count("point") == 7 == seen.count("none") + seen.count("polygon")
    assert bool(found) == ("polygon" in seen)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4300), max_size=60))
def test_any_ids_decode_without_an_error(ids):
    for name in ("color_palette", "metadata", "human_poses", "sam_instance", "caption", "det", "keypoints"):
        form = sequence_format(name, RELEASED, 64)
        form.encode(form.decode(ids))


def test_each_kind_of_sequence_has_a_format_and_dense_kinds_raise():
    assert set(SEQUENCE_FORMATS) == {"text", "boxes", "palette", "metadata", "poses", "instances", "keypoints"}
    with pytest.raises(ValueError, match="'depth' has kind depth, which is not a sequence"):
        sequence_format("depth", SMALL, 8)
    with pytest.raises(ValueError, match="'caption' is not allowed here"):
        TokenizersConfig(sequences={"caption": 8})
    with pytest.raises(ValueError, match=r"sequences\.metadata is 4000"):
        TokenizersConfig(sequences={"metadata": 4000})
    assert "sequences" not in TokenizersConfig().model_dump()


def test_vectors_are_padded_with_zeros_and_decoded():
    tokenizers = TokenizerSet(TokenizersConfig(visual={}, vectors={"t5_caption": (5, 3)}), SMALL, {})
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(count, 3)).astype(np.float16) for count in (0, 2, 5, 8)]
    stored = tokenizers.tokens("t5_caption", values)
    assert (
        stored.shape == (4, 5, 3)
        and "t5_caption" in tokenizers.modalities
        and "t5_caption" not in tokenizers.vocabulary_sizes()
    )
    for found, value in zip(tokenizers.decode("t5_caption", stored), values, strict=True):
        np.testing.assert_array_equal(found, value[:5])
    content = codecs.encode("t5_caption", stored[:2])  # two crops of a sample, as pre-tokenizing stores them
    np.testing.assert_array_equal(codecs.decode("t5_caption", content), stored[:2])
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        tokenizers.tokens("t5_caption", [np.zeros((2, 4), np.float16)])
    config = model_config(ArchitectureConfig(dim=16, num_heads=2), tokenizers, None)
    assert config.modality("t5_caption").vector_width == 3 and config.modality("t5_caption").num_positions == 5
    with pytest.raises(ValueError, match="allowed: labels of kind embeddings"):
        TokenizersConfig(vectors={"caption": (5, 3)})
