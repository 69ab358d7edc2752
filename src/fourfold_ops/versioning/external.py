"""Dependencies outside the project: files that DVC can hash without failing, waiting for ever or reading for hours."""

import importlib.util
import os
import stat
from collections.abc import Mapping
from pathlib import Path

# DVC reads every byte once and keeps one entry for each file, so what it hashes is bounded.
MAX_FILES, MAX_BYTES = 100_000, 50_000_000_000
# Schemes of URLs whose folders DVC reads: its own name of the scheme, with which its package ends too
SCHEMES = {name: name for name in ("s3", "gs", "azure", "ssh", "hdfs", "oss")} | {"abfs": "azure", "az": "azure", "gcs": "gs"}


def dependencies(project_path: Path, wanted: Mapping[str, tuple[str | None, str]]) -> tuple[dict[str, str], list[str]]:
    """Return the paths that dvc.yaml shall depend on, by name, and a sentence about each that DVC cannot read.

    Args:
        project_path: The folder of dvc.yaml, where relative paths start.
        wanted: By name: the file, folder or URL that a run read (None: nothing from outside), and a file of the project that
            takes its place where there is none, or where DVC cannot read it.
    """
    result, notes = {}, []
    for name, (place, instead) in wanted.items():
        obstacle = "" if place is None else obstacle_in(place, project_path)
        if obstacle:
            notes.append(f"`dvc status` does not compare {place}: {obstacle}. `kedro run` compares it by itself.")
        result[name] = instead if place is None or obstacle else _as_dvc_names(place)
    return result, notes


def obstacle_in(place: str, project_path: Path) -> str:
    """Return why DVC cannot hash a file, folder or URL; "" if it can.

    DVC fails on links that lead nowhere and on names that are not UTF-8, waits for ever for a pipe, and does not look into
    linked folders.
    """
    scheme, separator, address = place.partition("://")
    if separator:
        return _obstacle_of_url(scheme, address)
    root = project_path / place
    if project_path.resolve().is_relative_to(root.resolve()):
        return f"{_printable(root)} contains this project"
    try:
        if root.is_dir():
            return _obstacle_below(root)
        status = root.stat()
        return _obstacle(root, status.st_mode) or _excess(1, status.st_size)
    except OSError as error:
        return f"{_printable(root)} cannot be read ({error.strerror})"


def _obstacle_of_url(scheme: str, address: str) -> str:
    if scheme not in SCHEMES or (scheme != SCHEMES[scheme] and "@" in address.partition("/")[0]):  # abfs://container@account
        return f"DVC does not read such {scheme}:// folders"
    package = f"dvc_{SCHEMES[scheme]}"
    return "" if importlib.util.find_spec(package) else f"the package {package.replace('_', '-')} is not installed"


def _as_dvc_names(place: str) -> str:
    scheme, separator, address = place.partition("://")
    return f"{SCHEMES[scheme]}://{address}" if separator else place


def _obstacle_below(root: Path) -> str:
    """Return the first obstacle in a folder. It stops there, so a run never walks further than DVC would have to."""
    folders, num_files, num_bytes = [root], 0, 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink() and not Path(entry.path).exists():
                    return f"{_printable(entry.path)} is a link that leads nowhere"
                status = entry.stat()
                if found := _obstacle(Path(entry.path), status.st_mode):
                    return found
                if not entry.is_dir():
                    num_files, num_bytes = num_files + 1, num_bytes + status.st_size
                    if found := _excess(num_files, num_bytes):
                        return found
                elif entry.is_symlink():
                    return f"{_printable(entry.path)} is a linked folder"
                else:
                    folders.append(Path(entry.path))
    return ""


def _excess(num_files: int, num_bytes: int) -> str:
    if num_files > MAX_FILES:
        return f"it has more than {MAX_FILES:,} files"
    return f"it has more than {MAX_BYTES // 10**9} GB" if num_bytes > MAX_BYTES else ""


def _obstacle(path: Path, mode: int) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"the name {_printable(path)} is not UTF-8"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"{_printable(path)} is not a file"
    return "" if os.access(path, os.R_OK) else f"{_printable(path)} cannot be read"


def _printable(path: str | Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
