"""Digests of source files: what they see, and that content is read once for each version of a file."""

import os

import pytest

from fourfold.data.ingestion.sources import SourceContext, digests
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import FilesConfig

OLD = 1_600_000_000  # seconds


@pytest.fixture
def source(tmp_path):
    """A digest of a folder with two old files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (OLD, OLD))

    def digest(kind):
        config = FilesConfig(kind="folder", path=str(folder), digest=kind)
        context = SourceContext(0, tmp_path, (), tmp_path / "cache")
        return digest_and_version(folder, sorted(folder.iterdir()), config, context)[0]

    return folder, digest


@pytest.mark.parametrize("kind", ["listing", "content"])
def test_digest_changes_with_names_and_sizes_and_not_with_times(source, kind):
    folder, digest = source
    seen = [digest(kind)]
    (folder / "c.png").write_bytes(b"c")
    seen.append(digest(kind))
    (folder / "c.png").write_bytes(b"cc")
    seen.append(digest(kind))
    (folder / "c.png").rename(folder / "d.png")
    seen.append(digest(kind))
    assert len(set(seen)) == 4
    os.utime(folder / "a.png", (OLD + 5, OLD + 5))
    assert digest(kind) == seen[-1]


def test_only_the_content_digest_sees_an_edit_of_equal_size_and_the_version_sees_the_time(source):
    folder, _ = source
    listing, content = (FilesConfig(kind="folder", path=str(folder), digest=kind) for kind in ("listing", "content"))

    def seen():
        one = [folder / "a.png"]
        return *digest_and_version(folder, one, listing, None), *digest_and_version(folder, one, content, None)

    before = seen()
    (folder / "a.png").write_bytes(b"A.png")
    after = seen()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False, True]
    assert after[-1] == ""


def test_content_is_read_once_for_each_version_and_again_if_the_cache_is_damaged(source, monkeypatch, tmp_path):
    folder, digest = source
    read = []
    real = digests.sha256_file
    monkeypatch.setattr(digests, "sha256_file", lambda path: read.append(path.name) or real(path))
    first = digest("content")
    assert digest("content") == first and read == ["a.png", "b.png"]
    (folder / "a.png").write_bytes(b"A.png")  # just now: it may change again within the resolution of its time
    assert digest("content") != first and read[2:] == ["a.png"]
    digest("content")
    assert read[3:] == ["a.png"]
    (cache,) = (tmp_path / "cache").iterdir()
    for damage in (b"{", b"[1]\n", b"\xff", b"3\n"):
        read.clear()
        cache.write_bytes(damage)
        digest("content")
        assert read == ["a.png", "b.png"]


def test_unreadable_file_counts_with_its_error(source):
    folder, digest = source
    before = digest("listing"), digest("content")
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("nowhere")
    assert all(old != new for old, new in zip(before, (digest("listing"), digest("content")), strict=True))
