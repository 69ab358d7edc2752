import logging

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.tracking.store import check_writable


def test_unwritable_folder_is_one_clear_error(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write to .*file/data"):
        check_writable(tmp_path / "file/data")
    check_writable(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
