"""Neighbors and votes against other implementations (scikit-learn, plain loops)."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.generation import retrieval
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.retrieval import INDEX_FILE, Index, build_index, embed, knn_classify, nearest, unit
from fourfold.model.config import ModalityConfig
from fourfold.model.fourm import FourM

sys.path.insert(0, str(Path(__file__).parent))
from counting import CONFIG, CountingTokenizers

CLIP = ModalityConfig(name="tok_clip", kind="grid", vocabulary_size=16, grid=(2, 2))
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> AnyToAny:
    config = CONFIG.model_copy(update={"modalities": (*CONFIG.modalities, CLIP)})
    return AnyToAny(FourM(config, seed=2), CountingTokenizers())


@pytest.fixture
def shards(tmp_path) -> ShardSet:
    for shard in range(3):
        images = [(f"s{shard}-{row}", RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for row in range(4)]
        write_columns(tmp_path / "shards", "test", f"shard-0000{shard}.tar", {"rgb": images})
    finish_split(tmp_path / "shards", "test", ["rgb"])
    return ShardSet(tmp_path / "shards")


@pytest.mark.parametrize("k", [1, 5, 300])
def test_neighbors_match_scikit_learn(k, monkeypatch):
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr(retrieval, "QUERY_BATCH_SIZE", 7)
    gallery, queries = unit(RNG.normal(size=(120, 16))), unit(RNG.normal(size=(30, 16)))
    places, cosines = nearest(gallery, queries, k)
    judge = NearestNeighbors(n_neighbors=min(k, 120), metric="cosine", algorithm="brute").fit(gallery)
    distances, expected = judge.kneighbors(queries)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(cosines, 1 - distances, atol=1e-6)


def test_votes_match_scikit_learn_with_the_weights_of_the_paper():
    from sklearn.neighbors import KNeighborsClassifier

    centers = RNG.normal(size=(5, 12))
    classes, asked = RNG.integers(5, size=400), RNG.integers(5, size=150)
    gallery, queries = (centers[c] + 1.6 * RNG.normal(size=(len(c), 12)) for c in (classes, asked))
    judge = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(
        gallery, classes
    )
    found = knn_classify(gallery, classes, queries)
    np.testing.assert_array_equal(found, judge.predict(queries))
    assert 0.4 < (found == asked).mean() < 1  # neither trivial nor chance, so that weights matter
    uniform = KNeighborsClassifier(20, metric="cosine").fit(gallery, classes).predict(queries)
    assert (found != uniform).any()


def test_equal_neighbors_keep_their_order():
    gallery = unit(np.array([[1.0, 0], [0, 1], [1, 0], [1, 0]]))
    assert nearest(gallery, gallery[:1], 3)[0].tolist() == [[0, 2, 3]]
    assert knn_classify(gallery[:2], np.array([1, 0]), unit(np.array([[1.0, 1]])), k=2).tolist() == [0]


@pytest.mark.parametrize("space", ["encoder", "clip"])
def test_each_sample_of_an_index_is_its_own_nearest_neighbor(model, shards, tmp_path, space):
    index = build_index(model, shards, "test", tmp_path / "index", space=space)
    images = np.stack(shards.load_column("test", "rgb"))
    queries = embed(model, {"rgb": images}, space)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(index.vectors_NC, queries, atol=1e-6)
    assert list(index.keys) == shards.keys("test")
    cosines = index.nearest(queries, 1)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def test_any_modality_of_the_model_can_be_the_query(model):
    for query in ({"caption": ["a bb"]}, {"depth": np.ones((1, 2, 2))}, {"caption": ["a"], "depth": np.ones((1, 2, 2))}):
        assert embed(model, query, "clip").shape == (1, 3)


def test_killed_index_resumes_and_index_of_another_model_is_rebuilt(model, shards, tmp_path, monkeypatch):
    folder, asked = tmp_path / "index", []

    def counted(model, conditions, space, batch_size):
        asked.append(len(conditions["rgb"]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return embed(model, conditions, space, batch_size)

    monkeypatch.setattr(retrieval, "embed", counted)
    with pytest.raises(KeyboardInterrupt):
        build_index(model, shards, "test", folder)
    with pytest.raises(ValueError, match=f"{INDEX_FILE} is missing"):
        Index.load(folder)
    index = build_index(model, shards, "test", folder)
    assert len(asked) == 4  # one, the killed one, and the two that were left
    np.testing.assert_array_equal(index.vectors_NC, build_index(model, shards, "test", folder).vectors_NC)
    assert len(asked) == 4
    other = AnyToAny(FourM(model.model.config, seed=3), model.tokenizers)
    assert (build_index(other, shards, "test", folder).vectors_NC != index.vectors_NC).any()


@pytest.mark.parametrize("name", ["shard-00001.npy", INDEX_FILE])
def test_a_changed_index_is_refused_and_built_again(model, shards, tmp_path, name):
    folder = tmp_path / "index"
    index = build_index(model, shards, "test", folder)
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1  # a vector, or a letter of a key or of the space
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} changed after it was written: .*\. Delete the folder and build"):
        Index.load(folder)
    again = build_index(model, shards, "test", folder)
    np.testing.assert_array_equal(again.vectors_NC, index.vectors_NC)
    assert again.keys == index.keys


def test_folder_with_other_files_raises(model, shards, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="contains other files"):
        build_index(model, shards, "test", tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_unknown_space_raises_with_known_ones(model):
    with pytest.raises(ValueError, match=r"Unknown space 'depth'\. Known: encoder, clip"):
        embed(model, {"caption": ["a"]}, "depth")
