"""A disk that gets full: one line and the documented code; with more space, the same command ends with equal results."""

import os
import random
import subprocess
from pathlib import Path

from part import Part
from project import Project, difference

CODES = {1, 73, 78}  # a node failed, nothing recorded, nothing started: docs/exit-codes.md
LARGE = 4_000_000_000  # bytes; more than the tiny run needs


def fill(template: Path, folder: Path, wanted: dict[str, str], used: int, count: int, rng: random.Random) -> Part:
    """Run new projects on file systems that are too small, each of another size.

    Args:
        template: a project that has never run.
        folder: where to mount the file systems, one after the other.
        wanted: the products of an undisturbed run.
        used: bytes that a finished project has beyond the template.
        count: number of sizes.
        rng: decides the sizes.
    """
    if os.geteuid():
        return Part("disk full", "needs root", is_skipped=True)
    problems: list[str] = []
    full = equal = 0
    for number in range(count):
        place = folder.with_name(f"{folder.name}-{number}")
        place.mkdir()
        size = size_of(template) + int(used * rng.uniform(number, number + 0.9) / count)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "torture", str(place)], check=True)
        try:
            was_full, found = _one(template, place, wanted)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        full, equal = full + was_full, equal + (not found)
        problems += [f"{size / 1e6:.1f} MB: {problem}" for problem in found]
    problems += [] if full else ["no size was too small: every run ended before the disk was full"]
    return Part("disk full", f"{full} of {count} sizes too small; {equal} continued to equal bytes", tuple(problems))


def _one(template: Path, place: Path, wanted: dict[str, str]) -> tuple[bool, list[str]]:
    """Return whether the disk became full, and what was wrong."""
    project = Project.copy_of(template, place / "project", log=place.with_suffix(".log"))
    first = project.run()
    if first.code not in CODES | {0}:
        return True, [f"exit code {first.code}: {first.text[-1500:]}"]
    failures = [line for line in first.text.splitlines() if line.startswith("Failed")]  # a warning may follow it
    if first.code and ("Traceback" in first.text or len(failures) != 1 or "space" not in failures[0].lower()):
        return True, [f"not one line about space: {first.text[-1500:]}"]
    subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(place)], check=True)
    second = project.run()
    if second.code:
        return True, [f"with more space, exit code {second.code}: {second.text[-1500:]}"]
    return bool(first.code), [f"{name} differs" for name in difference(wanted, project.products())] + project.faults()


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes on a tmpfs: whole pages for each file; folders and short links take none."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum((path.stat().st_size + 4095) // 4096 * 4096 for path in files)
