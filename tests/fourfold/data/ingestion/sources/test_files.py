"""What sources of files share: listing, digests, keys."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.shards import KEY_PATTERN
from tests.fourfold.data.crawls import members_of, open_source, read_source, samples, write_folder, write_tar


def read(path, kind="webdataset"):
    return read_source({"kind": kind, "path": str(path)})


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_missing_path_and_empty_folder_are_errors(tmp_path, kind):
    with pytest.raises(ValueError, match=r"nowhere' does not exist .* Give an existing file or folder"):
        read(tmp_path / "nowhere", kind)
    with pytest.raises(ValueError, match=rf"holds no .* file. Is source.kind '{kind}' right\?"):
        read(tmp_path, kind)
    with pytest.raises(ValueError, match=r"path\n +Field required"):
        open_source({"kind": kind})


def test_named_pipe_is_skipped(tmp_path):
    for name in ("pipe.tar", "pipe.png"):
        os.mkfifo(tmp_path / name)
    write_tar(tmp_path / "a.tar", members_of([1]))
    write_folder(tmp_path, [2])
    assert len(samples(read(tmp_path))) == len(samples(read(tmp_path, "folder"))) == 1


@given(st.lists(st.text(max_size=120), max_size=30, unique=True))
def test_keys_are_safe_and_differ_where_names_differ(names):
    keys = [safe_key(name) for name in names]
    assert len(set(keys)) == len(names) and all(KEY_PATTERN.fullmatch(key) for key in keys)
