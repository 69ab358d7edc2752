"""The plug-in, registered for each test of this folder."""

import pytest

from fourfold.plugins import load_plugins


@pytest.fixture(autouse=True)
def plugin():
    load_plugins(["fourfold.medical"])  # tests/conftest.py forgets it again
