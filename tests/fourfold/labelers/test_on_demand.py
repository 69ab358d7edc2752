"""Labels that are not stored."""

import numpy as np
import pytest

from fourfold.labelers import integrate_labels, label_shards, train_teachers
from fourfold.labelers.on_demand import complete_labels
from fourfold.metric_log import NullMetricLog


@pytest.fixture(scope="module")
def teachers(data, tiny, tmp_path_factory):
    return train_teachers(*data, tiny, 0, tmp_path_factory.mktemp("teachers"), NullMetricLog())


@pytest.fixture(scope="module")
def stored(data, tiny, teachers, tmp_path_factory):
    """Return a function: settings → the labels that are stored with them."""

    def make(settings):
        folder = tmp_path_factory.mktemp(settings.keep)
        raw = label_shards(data[0], teachers, settings, folder / "raw")
        return integrate_labels(raw, data[0], settings, folder / "shards")[0]

    return make


@pytest.fixture(scope="module")
def everything(stored, tiny):
    return stored(tiny)


def is_equal(one, other):
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize(("keep", "names"), [("sample", ["shard-00000.tar"]), ("none", [])])
def test_labels_that_are_not_stored_have_the_values_that_storing_gives(
    data, tiny, teachers, stored, everything, keep, names, monkeypatch
):
    settings = tiny.model_copy(update={"keep": keep, "sample_size": 5})
    some = stored(settings)
    some.verify()
    assert some.splits() == (["train", "val"] if names else ["val"])
    assert (some.shard_names("train") if names else []) == names
    found = complete_labels(some, data[0], teachers, settings)
    computed = []
    monkeypatch.setattr(type(teachers), "predict", counted(computed, type(teachers).predict))
    for split in ("train", "val"):
        modalities = everything.modalities(split)
        assert found.modalities(split) == modalities and found.shard_names(split) == everything.shard_names(split)
        for wanted, sample in zip(everything.iterate(split, modalities), found.iterate(split, modalities), strict=True):
            assert wanted.keys() == sample.keys() and all(is_equal(wanted[name], sample[name]) for name in wanted)
    assert len(computed) == (2 - len(names)) * 2  # batches of the shards that are not stored, and no others
    assert found.class_table("train") == everything.class_table("train")
    assert len({found.digest(), some.digest(), everything.digest()}) == 3


def counted(calls, function):
    return lambda *arguments: calls.append(1) or function(*arguments)


def test_all_stored_labels_are_used_as_they_are(data, tiny, everything):
    assert complete_labels(everything, data[0], None, tiny) is everything


def test_labels_cannot_be_computed_without_teachers(data, tiny, everything):
    with pytest.raises(ValueError, match=r"keep is 'none', so labels are computed again, and there are no teachers\. Run"):
        complete_labels(everything, data[0], None, tiny.model_copy(update={"keep": "none"}))
