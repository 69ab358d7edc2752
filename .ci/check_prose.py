"""Check the prose of the repository: banned phrasings and the length of Markdown lines.

`make lint` runs it after codespell, which checks the spelling. It prints `file:line: phrase: advice` for each finding and
exits with 1 if there is any. A line that must keep a phrase ends with `prose: ignore`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_MARKDOWN_LINE = 120
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".toml", ".jinja", ".in"}
# Names the phrases that it bans.
EXEMPT = {".ci/check_prose.py"}

# Pattern (matched without case, in code and prose) → what to write instead.
BANNED = {
    r"\bgoes on\b": "continues / resumes",
    r"\b(is|are|was|were) told\b": "receives / is passed",
    r"\bbegins? anew\b|\bstarts? anew\b|\banew\b": "restart / again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\beats\b": "reads / takes as input",
    r"\bthe prototype\b|\b4m-facts\b|\bthe facts §": "cite a paper and section",
    r"\brooms?\b(?! (for|in|left|temperature))": "package / module",
    r"\bhouses?\b": "package / module",
    r"\bthe story\b": "the pipeline",
    r"\bwhoever\b": "the caller / the user",
    r"\bor the like\b": "and similar",
    r"\bof its own\b": "own / separate",
    r"\bmuster(s|ed|ing)?\b": "collect",
    r"\blinger(s|ed|ing)?\b": "wait",
    r"\bgain and pain\b|\bpains?\b": "positive and negative term",
    r"\bfates?\b": "rejection reason / outcome",
    r"\bfrom nothing to\b": "quick start",
    r"\bby heart\b": "overfit / memorize",
    r"\bmany a\b|\bsuch a one\b": "many / this",
}


def tracked_files() -> list[Path]:
    """Return the text files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603
    return [path for name in sorted(names) if (path := Path(name)).suffix in SUFFIXES and path.is_file() and name not in EXEMPT]


def findings(path: Path) -> Iterator[str]:
    """Yield what is wrong in one file, a line for each finding."""
    in_code_block = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if path.suffix == ".md" and line.lstrip().startswith("```"):
            in_code_block = not in_code_block
        # A table row or a code line cannot be wrapped.
        is_wrappable = not in_code_block and not line.lstrip().startswith(("|", "[", "!["))
        if path.suffix == ".md" and is_wrappable and len(line) > MAX_MARKDOWN_LINE:
            yield f"{path}:{number}: {len(line)} characters: wrap at {MAX_MARKDOWN_LINE}"
        if "prose: ignore" in line:
            continue
        for pattern, advice in BANNED.items():
            if match := re.search(pattern, line.replace("_", " "), re.IGNORECASE):
                yield f"{path}:{number}: {match.group(0)!r}: write {advice}"


def main() -> int:
    """Print all findings; return the exit code."""
    found = [finding for path in tracked_files() for finding in findings(path)]
    print("\n".join(found) if found else "prose: no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
