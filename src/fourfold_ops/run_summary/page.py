"""The head of a page that a run wrote: which run it belongs to. The page itself depends on data and code alone."""

import re
from pathlib import Path

from fourfold_ops.atomic import write_whole
from fourfold_ops.html import templates
from fourfold_ops.planning.checks import readable
from fourfold_ops.planning.text import duration
from fourfold_ops.run_summary.facts import LOCAL_SERVER, RunFacts
from fourfold_ops.run_summary.text import SHORT, number, signed

MARK = "<!-- the record of the run -->"  # is replaced by the head; a page without it gets the head after <body>
BODY = re.compile(r"<body[^>]*>", re.IGNORECASE)


def write_copy(page: Path, target: Path, facts: RunFacts) -> None:
    """Write a copy of an HTML page with the head of a run; the page stays as it is."""
    write_whole(target, with_head(page.read_text(encoding="utf-8"), facts).encode())


def with_head(html: str, facts: RunFacts) -> str:
    """Return a page with the head of a run."""
    head = head_html(facts)
    if MARK in html:
        return html.replace(MARK, head, 1)
    found = BODY.search(html)
    head = f'<div style="padding: 16px">\n{head}</div>\n'  # the page has no place for it, so no margins either
    return f"{html[: found.end()]}\n{head}{html[found.end() :]}" if found else head + html


def head_html(facts: RunFacts) -> str:
    """Return the head as HTML; all text from tags and names is escaped."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"number": number, "signed": signed, "duration": duration, "readable": readable}
    is_local = facts.url.startswith(LOCAL_SERVER)
    return environment.get_template("head.html.jinja").render(facts=facts, short=SHORT, is_local=is_local)
