"""Every error that a user can meet says what was received, what is allowed, and what to do; checked on the source code."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Not ArchiveError: its text is the reason of a counted loss.
USER_ERRORS = {"ValueError", "UserError", "BusyError", "NotRecordedError", "DatasetError", "UsageError"}
# They raise parts of a message: the caller puts the file, the label and the whole sentence around it.
FRAGMENTS = {"src/fourfold/data/codecs.py", "src/fourfold/data/ingestion/sources/caption_tables.py"}
PLACE = "\N{BULLET}"  # stands for an inserted value
BOUND = re.compile(
    r"\b(must|needs?|allow(s|ed)|expected|at most|at least|only|one of|no [a-z]+ may|known|takes|supported)\b", re.IGNORECASE
)
# An instruction starts a sentence or a part of one.
VERBS = (
    "Add|Allow|Ask|Build|Call|Change|Check|Choose|Configure|Convert|Copy|Correct|Crop|Declare|Define|Delete|Do|Download|Free|Give|"
    "Import|Install|Keep|Leave|List|Look|Lower|Make|Move|Name|Pass|Provide|Put|Raise|Read|Rebuild|Record|Reduce|Register|Remove|"
    "Rename|Replace|Resize|Restore|Return|Run|See|Save|Send|Set|Shorten|Start|Store|Train|Try|Turn|Update|Use|Wait|Write"
)
INSTRUCTION = re.compile(rf"(^|[.:;?{PLACE}] |, or |, )({VERBS}|{VERBS.lower()})\b")
KINDS = "(int|str|float|bool|list|dict|tuple|None)"
UNION = re.compile(rf"\b{KINDS}\s*\|\s*{KINDS}\b|Optional\[|Union\[")


@dataclass(frozen=True)
class Raised:
    """One `raise` statement with the text of its message; inserted values are PLACE."""

    where: str
    error: str
    text: str
    remedy: str


def raised() -> Iterator[Raised]:
    for folder in ("src", "pipelines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    name = node.exc.func.attr if isinstance(node.exc.func, ast.Attribute) else getattr(node.exc.func, "id", "")
                    if str(path.relative_to(ROOT)) in FRAGMENTS:
                        continue
                    if name in USER_ERRORS and node.exc.args:
                        texts = [*(text_of(argument) for argument in node.exc.args), ""]
                        remedy = next((text_of(k.value) for k in node.exc.keywords if k.arg == "remedy"), texts[1])
                        yield Raised(f"{path.relative_to(ROOT)}:{node.lineno}", name, texts[0], remedy)


def text_of(node: ast.expr) -> str:
    """Return a string expression as text."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else PLACE for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body):
            return text_of(body)
    return PLACE


def problems(found: Raised) -> list[str]:
    whole = f"{found.text} {found.remedy}".strip()
    if not whole.strip(f"{PLACE}. "):
        return []  # made elsewhere
    if whole.endswith((PLACE, f". {PLACE}.")) or f". {PLACE};" in whole:
        return []  # a place in front of a message, or with a remedy, that is checked where it is made
    is_helpful = BOUND.search(whole) or INSTRUCTION.search(whole) or "? " in f"{whole} "
    checks = {
        "does not end with a period": not whole.endswith((".", "?", ": true")),
        "has a Python union type": bool(UNION.search(whole)),
        "says neither what is allowed nor what to do": not is_helpful,
    }
    return [problem for problem, is_wrong in checks.items() if is_wrong]


def test_every_user_error_has_the_form():
    found = list(raised())
    assert len(found) > 250
    wrong = [f"{each.where}: {problem}: {each.text}" for each in found for problem in problems(each)]
    assert not wrong, "\n".join(wrong)


def test_the_rules_find_faults():
    wrong = {
        "Too large": 2,
        f"{PLACE} is wrong.": 1,
        "Give an int | None.": 1,
        f"The images of {PLACE} are broken.": 1,
        f"Unknown modality {PLACE}": 0,  # ends with an inserted message
        f"{PLACE} must be 1 or more, got {PLACE}.": 0,
    }
    assert {text: len(problems(Raised("", "ValueError", text, ""))) for text in wrong} == wrong
    assert not problems(Raised("", "UserError", "The disk is full.", "Free some space."))
