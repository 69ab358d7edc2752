"""What the tests of fine-tuning share: data, and a tiny model that is not trained."""

import pytest

from fourfold.transfer.arms import PretrainedModel
from tests.fourfold.transfer.tiny_model import tiny_model, tiny_text, transfer_data


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return transfer_data(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def pretrained():
    text = tiny_text()
    return PretrainedModel(tiny_model(text), text, "tiny")
