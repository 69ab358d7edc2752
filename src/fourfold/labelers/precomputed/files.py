"""Files of labels, found by the keys that ingestion gives to the images of the same name."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from fourfold.data.ingestion.sources.files import IMAGE_EXTENSIONS, safe_key

SHOWN = 3  # missing keys in a message


def keys_of_name(name: str) -> Iterable[str]:
    """Yield the keys that an image has whose label is `name`: with the name itself, without extension, with another one."""
    stem = str(PurePosixPath(name).with_suffix(""))
    yield safe_key(name)
    yield safe_key(stem)
    for extension in sorted(IMAGE_EXTENSIONS):
        yield safe_key(f"{stem}.{extension}")
        yield safe_key(f"{stem}.{extension.upper()}")


@lru_cache(maxsize=8)
def files_by_key(folder: Path, extensions: tuple[str, ...]) -> Mapping[str, Path]:
    """Return the files of a folder and its sub-folders by the keys of the images that they may belong to.

    Raises:
        ValueError: the folder does not exist, or has no such file.
    """
    if not folder.is_dir():
        raise ValueError(f"path is {str(folder)!r}: there is no such folder. Give the folder with a file for each image.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in extensions)
    if not files:
        raise ValueError(f"{folder} has no file {' or '.join(extensions)}. Give the folder with a file for each image.")
    return {key: path for path in files for key in keys_of_name(path.relative_to(folder).as_posix())}


@lru_cache(maxsize=8)
def listing_digest(folder: Path, extensions: tuple[str, ...]) -> str:
    """Return a SHA-256 over names, sizes and times of the files of a folder: what changes when labels are replaced."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in extensions)
    entries = [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def require_all(keys: Sequence[str], known: Mapping[str, object], where: object) -> None:
    """Raise ValueError that counts the images without a label in `known`."""
    missing = [key for key in keys if key not in known]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ValueError(
            f"{where} has no label for {len(missing)} of {len(keys)} images: {', '.join(missing[:SHOWN])}{more}. Add them, "
            "named like the images, or take these images out of the source."
        )
