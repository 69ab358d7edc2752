"""Finds in the last lines of a log the one that names the error. Pure."""

import re

COLORS = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r"^[\s|+│-]+(?=\S)|\s*[│|]\s*$")  # around what an exception group or rich draws
OURS = ("Failed in ", "Failed: ", "Error: ")
NAMED = re.compile(r"^([\w.]+(Error|Exception|Interrupt|ExceptionGroup)|[\w.]+\.[A-Z]\w+): ")
NAMED_ALONE = re.compile(r"^[\w.]*[A-Z]\w*(Error|Exception|Interrupt)$")  # raised without a message


def error_line(text: str) -> str:
    """Return the line that names the error: ours ("Failed in …"), else the last "…Error: …", else the last line."""
    lines = [FRAME.sub("", line).strip() for line in COLORS.sub("", text).splitlines()]
    lines = [line for line in lines if line]
    ours = [line for line in lines if line.startswith(OURS)]
    errors = [line for line in lines if NAMED.match(line) or NAMED_ALONE.match(line)]
    found = re.sub(r"^Failed in [^,:]+, node [^,:]+[,:] ", "", (ours or errors or lines or [""])[-1])  # the title says where
    return re.sub(r" \[details: [^\]]*\]$", "", found)
