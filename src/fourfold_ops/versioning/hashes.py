"""Hashes of folders as DVC writes them into dvc.lock, without loading DVC."""

import hashlib
import json

FOLDER = ".dir"  # ending of the MD5 of a folder


def md5_of_listing(files: dict[str, str]) -> str:
    """Return DVC's MD5 of a folder from the MD5 of its files by path."""
    rows = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + FOLDER
