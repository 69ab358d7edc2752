"""Small sources for the tests: tars and folders, valid and damaged."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from fourfold.data.ingestion.sources import SOURCES, AnySourceConfig, Drop, RawSample, SampleStream, SourceContext
from fourfold.seeds import numpy_generator


def image_bytes(number: int, side: int = 16) -> bytes:
    """A PNG that differs from that of every other number."""
    coarse = numpy_generator(0, "picture", number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(coarse, np.ones((side // 4, side // 4, 1), np.uint8))).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def members_of(numbers, prefix: str = "photo") -> list[tuple[str, bytes]]:
    """Image and caption members, as img2dataset orders them."""
    return [
        member
        for n in numbers
        for member in ((f"{prefix}{n:05d}.png", image_bytes(n)), (f"{prefix}{n:05d}.txt", f"photo number {n}".encode()))
    ]


def write_tar(path: Path, members, special=()) -> Path:
    """Write members, then `special` TarInfo objects without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in special:
            archive.addfile(member)
    return path


def write_folder(folder: Path, numbers) -> Path:
    """Images with `.txt` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in members_of(numbers):
        (folder / name).write_bytes(content)
    return folder


def open_source(settings: dict) -> list[SampleStream]:
    """Open the source of these settings, as they stand in conf/."""
    config = TypeAdapter(AnySourceConfig).validate_python(settings)
    return SOURCES.get(config.kind).open(config, SourceContext(0, Path("unused")))


def read_source(settings: dict) -> list[RawSample | Drop]:
    """Read the source of these settings."""
    return [item for stream in open_source(settings) for part in stream.slices for item in part.read()]


def samples(items) -> list[RawSample]:
    return [item for item in items if isinstance(item, RawSample) and item.caption is not None]


def drops(items) -> list[tuple[str, str, str]]:
    """Return what is left out where captions are required: losses of the source, and samples without a caption."""
    lost = [Drop(i.name, i.no_caption) if isinstance(i, RawSample) and i.caption is None else i for i in items]
    return [(item.name, item.reason, item.what) for item in lost if isinstance(item, Drop)]
