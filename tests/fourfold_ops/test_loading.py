from pathlib import Path

import pytest

from fourfold_ops.loading import load_object


def test_wrong_dotted_path_names_the_missing_part():
    assert load_object("pathlib.Path.cwd")() == Path.cwd()
    with pytest.raises(ValueError, match="pathlib has no 'Pth'"):
        load_object("pathlib.Pth")
    with pytest.raises(ValueError, match="no module 'nowhere'"):
        load_object("nowhere.at.all")
