"""What may leave a file: digests instead of identities, no messages of the libraries that read them.

Nothing here makes data anonymous: pixels may hold text or a face, and a digest without a salt can be found by trying all
numbers of a hospital.
"""

import hashlib
import logging
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAKE_SALT = "head -c 32 /dev/urandom | base64 > salt"
MIN_SALT_BYTES = 16
MAX_SALT_BYTES = 64  # of the key of BLAKE2b
DIGEST_BYTES = 8
PERSON = b"fourfold-medical"  # other programs that use the same salt get other digests
KEY = re.compile(r"p([0-9a-f]{16})-v([0-9a-f]{16})-s([0-9a-f]{16})-([0-9]{4,9})")
PATIENT = re.compile(r"p[0-9a-f]{16}")
LOGGERS = ("pydicom", "nibabel.global")  # they quote values of tags


@dataclass(frozen=True)
class SliceName:
    """What the key of a slice tells: digests of patient, visit and series, and the number of the slice."""

    patient: str
    visit: str
    series: str
    number: int

    @property
    def key(self) -> str:
        """The key, e.g. `p0123456789abcdef-v…-s…-0042`."""
        return f"p{self.patient}-v{self.visit}-s{self.series}-{self.number:04d}"

    @classmethod
    def of(cls, key: str) -> "SliceName":
        """Return the parts of a key, also of one that ingestion completed because another sample had it.

        Raises:
            ValueError: it is not the key of a slice.
        """
        if (match := KEY.search(key)) is None:
            raise ValueError(f"{key!r} is not the key of a slice. Use labelers of kind 'medical' with this source only.")
        return cls(match[1], match[2], match[3], int(match[4]))


def patient_of(key: str) -> str:
    """Return the part of a key that all slices of a patient have in common: they fall into one split."""
    match = PATIENT.search(key)
    return match[0] if match else key


class Digests:
    """Replaces identities by digests: BLAKE2b of 64 bits, with the content of a secret file as key if there is one."""

    def __init__(self, salt_file: str | None) -> None:
        self._salt = b"" if salt_file is None else _read_salt(Path(salt_file).expanduser())

    def of(self, *identity: str) -> str:
        """Return 16 hex digits for an identity, e.g. a patient and a series."""
        text = b"".join(
            len(part).to_bytes(4, "big") + part for part in (one.encode("utf-8", "surrogatepass") for one in identity)
        )
        return hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=self._salt, person=PERSON).hexdigest()


def _read_salt(path: Path) -> bytes:
    try:
        salt = path.read_bytes().strip()
    except OSError as error:
        raise ValueError(f"salt_file {str(path)!r} cannot be read ({type(error).__name__}). Make one: `{MAKE_SALT}`.") from None
    if not MIN_SALT_BYTES <= len(salt) <= MAX_SALT_BYTES:
        raise ValueError(
            f"salt_file {str(path)!r} has {len(salt)} bytes; allowed: {MIN_SALT_BYTES} to {MAX_SALT_BYTES}. Make another one: "
            f"`{MAKE_SALT}`."
        )
    return salt


def require_unversioned(folder: Path) -> None:
    """Raise ValueError if git would version a folder: a run records uncommitted files, with their names and contents.

    Nothing is checked without git, or outside of a repository.
    """
    program = shutil.which("git")
    if program is None:
        return
    place = folder.resolve()
    command = [program, "-C", str(place), "rev-parse", "--is-inside-work-tree"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # noqa: S603  fixed program, no shell
        return
    command = [program, "-C", str(place), "check-ignore", "--quiet", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode == 1:  # noqa: S603
        raise ValueError(
            f"source.path {str(folder)!r} is in a git repository that does not ignore it. A run records uncommitted files with "
            "names and contents. Keep scans elsewhere, below datasets/, or name their folder in .gitignore."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries say about a file from logs: they quote values of tags."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
