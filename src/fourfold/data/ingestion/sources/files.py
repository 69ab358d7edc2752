"""What sources that read files share: settings, the list of files with its digest, and keys that are safe as file names."""

import hashlib
import re
from pathlib import Path

from pydantic import Field

from fourfold.data.ingestion.sources.source import SourceConfig
from fourfold.data.shards import KEY_PATTERN

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
READABLE_CHARACTERS = 40  # of a long or unsafe name, at the start of its key


class FilesConfig(SourceConfig):
    """Settings of a source that reads files."""

    path: str = Field(min_length=1)  # a file or folder; a relative path starts at the project
    max_file_bytes: int = Field(50_000_000, ge=1_000)  # of one image or caption


def list_files(config: FilesConfig, pattern: str, extensions: frozenset[str]) -> list[Path]:
    """Return the files of a source that match a glob pattern, sorted; a `path` that is a file is the only one.

    Hidden files (unfinished downloads, files of the system) and what is not a plain file (reading a named pipe would block)
    are left out.

    Raises:
        ValueError: the path does not exist, cannot be listed, or has no file with one of `extensions` (lower case, no dot).
    """
    root = Path(config.path)
    if not root.exists():
        raise ValueError(f"source.path {config.path!r} does not exist (from {Path.cwd()}). Give an existing file or folder.")
    try:
        listed = [root] if root.is_file() else list(root.rglob(pattern))
        files = sorted(path for path in listed if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ValueError(
            f"source.path {config.path!r} cannot be listed: {error.strerror}. Give this user access to it."
        ) from error
    if not any(path.suffix[1:].lower() in extensions for path in files):
        wanted = " ".join(f".{extension}" for extension in sorted(extensions))
        raise ValueError(f"source.path {config.path!r} holds no {wanted} file. Is source.kind {config.kind!r} right?")
    return files


def digest_of_files(root: Path, files: list[Path]) -> str:
    """Return a SHA-256 over the names, relative to `root`, and the bytes of files."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def safe_key(name: str) -> str:
    """Return a key for a sample's name: the name itself where shards allow it, otherwise its readable end and a hash.

    Different names give different keys.
    """
    if KEY_PATTERN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[-READABLE_CHARACTERS:].strip("-")
    return f"{readable}-{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"
