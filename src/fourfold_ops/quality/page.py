"""The outcomes of suites as pages without scripts or images: they open anywhere and load nothing."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2330; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #d7dce3; }
td { overflow-wrap: anywhere; min-width: 5rem; } .scroll { overflow-x: auto; } a { color: inherit; }
.failed { color: #a11a1a; font-weight: 600; } .passed { color: #1a6b34; }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #e4e8ee; } th, td { border-color: #39414d; }
  .failed { color: #ff8a80; } .passed { color: #7fd79a; } }
"""


def quality_page(suite: str, outcomes: Sequence[Mapping[str, Any]], num_rows: int) -> str:
    """Return the outcomes of a suite as HTML, failed expectations first.

    Args:
        suite: Name of the suite.
        outcomes: As `run_suite` returns them.
        num_rows: Rows of the table that was checked.
    """
    failed = [outcome for outcome in outcomes if not outcome["success"]]
    passed = [outcome for outcome in outcomes if outcome["success"]]
    verdict = f"{len(failed)} of {len(outcomes)} expectations failed" if failed else f"all {len(outcomes)} expectations hold"
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Result", "Expectation", "Column", "Limits", "Found", "Severity"))
    rows = "\n".join(_row(outcome) for outcome in [*failed, *passed])
    table = (
        f"<table><caption>{num_rows:,} rows; {verdict}.</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"
    )
    return _page(f"Data quality: {suite}", table)


def index_page(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the list of all suites with links to their pages in the same folder, those with failures first.

    Args:
        records: For each suite `suite` (its name), `rows`, `all` (number of expectations) and `failed`.
    """
    lines = []
    for record in sorted(records, key=lambda record: (not record["failed"], record["suite"])):
        kind = "failed" if record["failed"] else "passed"
        name = f'<a href="{escape(quote(record["suite"]))}.html">{escape(record["suite"])}</a>'
        counts = f"{record['failed']} of {record['all']} expectations failed" if record["failed"] else f"{record['all']} hold"
        lines.append(f'<tr><td class="{kind}">{kind}</td><td>{name}</td><td>{counts}</td><td>{record["rows"]:,}</td></tr>')
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Result", "Suite", "Expectations", "Rows"))
    table = f"<table><caption>The latest check of each suite.</caption><thead><tr>{head}</tr></thead>\n<tbody>"
    return _page("Data quality", table + "\n".join(lines) + "</tbody></table>")


def _page(title: str, content: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>'
        f'<div class="scroll" tabindex="0">{content}</div></body></html>\n'
    )


def _row(outcome: Mapping[str, Any]) -> str:
    kind = "passed" if outcome["success"] else "failed"
    limits = ", ".join(f"{name} = {value}" for name, value in outcome["limits"].items())
    name = outcome["type"].removeprefix("expect_").replace("_", " ")
    cells = [name, outcome["column"] or "", limits, _found(outcome), outcome["severity"]]
    return f'<tr><td class="{kind}">{kind}</td>{"".join(f"<td>{escape(str(cell))}</td>" for cell in cells)}</tr>'


def _found(outcome: Mapping[str, Any]) -> str:
    if outcome["error"]:
        return f"could not be checked: {outcome['error']}"
    if outcome["count"] is None:
        return "" if outcome["observed"] is None else str(outcome["observed"])
    examples = f", e.g. {', '.join(map(str, outcome['examples']))}" if outcome["examples"] else ""
    return f"{outcome['count']:,} of {outcome['rows']:,} rows fail{examples}" if outcome["count"] else "no row fails"
