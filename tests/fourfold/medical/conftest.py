"""The plug-in, registered for each test of this folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from medical_files import registered


@pytest.fixture(autouse=True)
def plugin():
    with registered():
        yield
