"""The last lines of `kedro run`: aligned, and at most 80 columns wide where names allow it."""

import shlex
from collections.abc import Sequence

from fourfold_ops.planning.checks import readable
from fourfold_ops.planning.text import duration
from fourfold_ops.run_summary.facts import EARLIER, LOCAL_SERVER, REUSED, RunFacts

SHORT = 7  # hex digits of a commit


def summary_text(facts: RunFacts) -> str:
    """Return the summary of a run for the terminal."""
    blocks = [_stages(facts), _metrics(facts), _pairs(facts)]
    return "\n\n".join("\n".join(f"  {line}".rstrip() for line in block) for block in blocks if block)


def number(value: float | None) -> str:
    """Return a number with about three significant digits; a dash for None."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 1 if size >= 10 else 2 if size >= 2 else 4 if 0 < size < 0.1 else 3
    return f"{value:.{digits}f}"


def signed(difference: float) -> str:
    """Return a difference with its sign, and the digits of `number`."""
    return f"{'-' if difference < 0 else '+' if difference > 0 else ''}{number(abs(difference))}"


def _stages(facts: RunFacts) -> list[str]:
    rows = [
        (
            stage.name,
            stage.action,
            "" if stage.seconds is None or stage.action == REUSED else duration(stage.seconds),
            readable(stage.size) if stage.size else "",
        )
        for stage in facts.stages
        if stage.action != EARLIER
    ]
    return _table(("Stage", "", "Time", "Results"), rows, left=2) if rows else []


def _metrics(facts: RunFacts) -> list[str]:
    if not facts.metrics or facts.model is None:
        return []
    compares = bool(facts.model.champion) and not facts.model.is_champion
    head = ["Metric", "", "Model", "Trivial", *([f"Champion {facts.model.champion}", ""] if compares else [])]
    rows = []
    for metric in facts.metrics:
        row = [metric.name, "↓" if metric.lower_is_better else "↑", number(metric.value), number(metric.trivial)]
        rows.append([*row, *([number(metric.champion), metric.verdict] if compares else [])])
    return _table(head, rows, left=2, last_left=compares)


def _pairs(facts: RunFacts) -> list[str]:
    pairs = []
    if facts.run_id:
        pairs.append(("Run", facts.run_id))
    if facts.environment:
        commit = f"commit {facts.commit[:SHORT]}" if facts.commit else "no commit"
        changes = ", uncommitted changes" if facts.is_dirty else ""
        pairs.append(("Code", f"{commit}{changes}; environment {facts.environment}"))
    if facts.model:
        pairs.append(("Model", facts.model.title))
    failed = [f"{suite.name} ({suite.failed} of {suite.expectations} failed)" for suite in facts.suites if suite.failed]
    if failed:
        pairs.append(("Checks", ", ".join(failed)))
    pairs += [*facts.places.items(), ("Runs", "make ui" if facts.url.startswith(LOCAL_SERVER) or not facts.url else facts.url)]
    if facts.uncommitted:
        pairs.append(("Record it", f"git add {shlex.join(facts.uncommitted)} && git commit -m 'Record the run'"))
    if facts.model and "candidate" in facts.model.aliases and not facts.model.is_champion:
        options = f" --env={facts.environment}" if facts.environment not in ("", "base", "local") else ""
        pairs.append(("Promote it", f"kedro models promote candidate{options}"))
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {text}" for name, text in pairs]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int, last_left: bool = False) -> list[str]:
    """Return rows as lines; the first `left` columns are aligned to the left, the others to the right."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    last = len(head) - 1
    lines = []
    for row in [head, *rows]:
        cells = [
            text.ljust(width) if index < left or (last_left and index == last) else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cell for cell, width in zip(cells, widths, strict=True) if width).rstrip())
    return lines
