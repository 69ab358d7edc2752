"""Patterns as `source.path`: `crawl/{00000..00099}.tar`, `crawl/*.tar`, `crawl/**/part-?.tar`."""

import re
from collections.abc import Callable
from pathlib import Path, PurePath

SPECIAL = re.compile(r"[*?{]")
TOKEN = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}|\{([^{}]*)\}|(\*\*/)|(\*)|(\?)|(.)", re.DOTALL)


def split_pattern(path: str) -> tuple[Path, Callable[[str], bool]]:
    """Return the folder that a pattern starts in, and a function that tells whether a name below it matches.

    `{a..b}` stands for the numbers from a to b with the digits of a, `{x,y}` for either text, `*` and `?` for any characters
    of a name, `**/` for any folders.
    """
    parts = PurePath(path).parts
    first = next(number for number, part in enumerate(parts) if SPECIAL.search(part))
    expression, ranges = "", []
    for low, high, either, folders, many, one, other in TOKEN.findall("/".join(parts[first:])):
        if low:
            ranges.append((int(low), int(high)))
            expression += rf"(\d{{{len(low)},{max(len(low), len(high))}}})"
        elif folders:
            expression += "(?:[^/]+/)*"
        elif many or one:
            expression += "[^/]*" if many else "[^/]"
        else:
            expression += re.escape(other) if other else f"(?:{'|'.join(map(re.escape, either.split(',')))})"
    compiled = re.compile(expression)

    def matches(name: str) -> bool:
        found = compiled.fullmatch(name)
        return found is not None and all(low <= int(n) <= high for n, (low, high) in zip(found.groups(), ranges, strict=True))

    return Path(*parts[:first]), matches


def is_pattern(path: str) -> bool:
    """Return whether a path that does not exist is a pattern."""
    return bool(SPECIAL.search(path)) and not Path(path).exists()
