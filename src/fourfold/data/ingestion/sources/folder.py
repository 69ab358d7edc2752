"""A folder of images, each with a text file beside it or a row in a caption table. Nothing in it is trusted."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fourfold.data.ingestion.sources.caption_tables import (
    MAX_CAPTIONS,
    TableCaptions,
    TableConfig,
    is_table,
    normalized,
    read_tables,
)
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import (
    IMAGE_EXTENSIONS,
    UNREAD_IMAGES,
    after_drops,
    printable,
    safe_key,
)
from fourfold.data.ingestion.sources.listing import Listing, list_files
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice

TEXT_EXTENSIONS = ("txt", "caption")  # of text files beside images, in the order of the captions if there are several
FILES_PER_SLICE = 10_000


class FolderConfig(TableConfig):
    """Settings of a folder of images."""

    kind: Literal["folder"] = "folder"
    class_folders: bool = False  # the first folder below `path` names the class of an image, as in ImageNet and ImageFolder


class FolderSource(Source):
    """Reads the images of a folder and its sub-folders, in the order of their names."""

    title = "folder of images with text files or a caption table"
    config_class = FolderConfig

    def open(self, config: FolderConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        listing = _list_images(config)
        files, root = listing.files, listing.root
        images = [path for path in files if _extension(path) in IMAGE_EXTENSIONS]
        names = {normalized(path.relative_to(root).as_posix()) for path in images}
        described = (path for path in files if _extension(path) in IMAGE_EXTENSIONS | UNREAD_IMAGES)
        stems = names.union(_stem(path, root) for path in described)
        folder = _Folder(root, config, _text_files(root, files), stems, read_tables(root, files, names, config, context.fields))
        runs = [files[start : start + FILES_PER_SLICE] for start in range(0, len(files), FILES_PER_SLICE)]
        slices = [SourceSlice(f"files from {printable(run[0].name)}", partial(folder.read, run)) for run in runs]
        slices = after_drops([*listing.skipped, *folder.tables.drops], slices)
        digest, version = digest_and_version(root, files, config, context)
        return [SampleStream("source", config.path, slices, digest, version=version)]

    def count(self, config: FolderConfig, split_of: Callable[[str], str]) -> dict[str, int]:  # noqa: D102
        listing = _list_images(config)
        images = (path for path in listing.files if _extension(path) in IMAGE_EXTENSIONS)
        return dict(Counter(split_of(safe_key(path.relative_to(listing.root).as_posix())) for path in images))


@dataclass(frozen=True)
class _Folder:
    """What is known of a folder before its images are read; names are normalized and relative to the root."""

    root: Path
    config: FolderConfig
    texts: dict[str, list[Path]]  # text files by name without the extension
    stems: set[str]  # names of images with and without their extension, also of images in formats that are not read
    tables: TableCaptions

    def read(self, files: Sequence[Path]) -> Iterator[RawSample | Drop]:
        """Yield the samples of some files. Whatever is raised within a file becomes a counted loss that names it."""
        for path in files:
            name = path.relative_to(self.root).as_posix()
            if _extension(path) not in IMAGE_EXTENSIONS:
                yield from self._loss(path, name)
                continue
            try:
                yield self._sample(path, name)
            except MemoryError:  # a fault of the machine: reads are bounded
                raise
            except Exception as error:
                yield Drop(name, f"file cannot be read ({type(error).__name__})")
            for _ in range(self.tables.surplus.get(normalized(name), 0)):
                yield Drop(name, f"image has more than {MAX_CAPTIONS} rows with captions", "caption")

    def _loss(self, path: Path, name: str) -> Iterator[Drop]:
        """Yield the loss that a file which is no image means."""
        extension = _extension(path)
        if extension in UNREAD_IMAGES:
            yield Drop(name, f"image format .{extension} is not read")
        elif extension in TEXT_EXTENSIONS:
            if _stem(path, self.root) not in self.stems:
                yield Drop(name, "text file without an image", "member")
        elif not is_table(path):
            yield Drop(name, "file of a kind that is not read", "member")

    def _sample(self, path: Path, name: str) -> RawSample | Drop:
        key = normalized(name)
        files = [*self.texts.get(_stem(path, self.root), ()), *self.texts.get(key, ())]
        captions = [_read_at_most(file, self.config.max_file_bytes) for file in files]
        captions += [caption.encode("utf-8", "surrogatepass") for caption in self.tables.captions.get(key, ())]
        image = _read_at_most(path, self.config.max_file_bytes)
        if image is None or None in captions:
            return Drop(name, "file is too large")
        texts = [caption for caption in captions if caption is not None]
        reason = self.tables.reasons.get(key, "no caption")
        return RawSample(safe_key(name), name, image, next(iter(texts), None), self._metadata(name), texts[1:], reason)

    def _metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of an image: its row, and the class that its folder names."""
        folder, _, rest = name.partition("/")
        metadata: dict[str, Any] = {"class": folder} if self.config.class_folders and rest else {}
        return metadata | self.tables.metadata.get(normalized(name), {})


def _list_images(config: FolderConfig) -> Listing:
    if "://" in config.path:
        raise ValueError(
            f"source.path {config.path!r} is a URL. Only tars are read from URLs (webdataset): copy or mount the images, "
            "and give their path."
        )
    if Path(config.path).is_file():
        raise ValueError(f"source.path {config.path!r} is a file; source.kind 'folder' needs the folder of the images.")
    return list_files(config, [f".{extension}" for extension in IMAGE_EXTENSIONS], "sample")


def _read_at_most(path: Path, limit: int) -> bytes | None:
    """Return the content of a file; None if it has more than `limit` bytes, whatever its size was when it was listed."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def _text_files(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the text files by normalized name without extension; `.txt` comes before other spellings."""
    found = [path for path in files if _extension(path) in TEXT_EXTENSIONS]
    found.sort(key=lambda path: (TEXT_EXTENSIONS.index(_extension(path)), path.suffix != ".txt"))
    by_stem: dict[str, list[Path]] = {}
    for path in found:
        by_stem.setdefault(_stem(path, root), []).append(path)
    return by_stem


def _extension(path: Path) -> str:
    return path.suffix[1:].lower()


def _stem(path: Path, root: Path) -> str:
    return normalized(path.relative_to(root).with_suffix("").as_posix())
