"""Finds the line of a log that names the error."""

import re

COLORS = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r"^[\s|+│-]+(?=\S)|\s*[│|]\s*$")  # frames drawn by exception groups and rich
OURS = ("Failed in ", "Failed: ", "Error: ")
NAMED = re.compile(r"^([\w.]+(Error|Exception|Interrupt|ExceptionGroup)|[\w.]+\.[A-Z]\w+): ")
NAMED_WITHOUT_MESSAGE = re.compile(r"^[\w.]*[A-Z]\w*(Error|Exception|Interrupt)$")


def error_line(text: str) -> str:
    """Return the line that names the error.

    This is the last line that our commands print on failure ("Failed in ..."), else the last "...Error: ..." of a
    traceback, else the last line.
    """
    lines = [FRAME.sub("", line).strip() for line in COLORS.sub("", text).splitlines()]
    lines = [line for line in lines if line]
    ours = [line for line in lines if line.startswith(OURS)]
    errors = [line for line in lines if NAMED.match(line) or NAMED_WITHOUT_MESSAGE.match(line)]
    line = re.sub(
        r"^Failed in [^,:]+, node [^,:]+[,:] ", "", (ours or errors or lines or [""])[-1]
    )  # the title of the step names the place
    return re.sub(r" \[details: [^\]]*\]$", "", line)
