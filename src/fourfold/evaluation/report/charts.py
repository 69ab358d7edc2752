"""Small charts as SVG text that takes its colors from the page, so that they are readable on light and dark."""

from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]


def strip(
    marks: Mapping[str, float | None], interval: Sequence[float] | None, lower_is_better: bool, label: str, width: int = 240
) -> str:
    """Return figures of one metric on one line, better to the right; a perfect 0 (lower is better) or 1 is its right end.

    `marks` may hold `value` (a dot with its interval), `teacher` (a diamond), `trivial` (a bar) and `shuffled` (a cross).
    """
    known = {name: mark for name, mark in marks.items() if mark is not None}
    if "value" not in known:
        return ""
    ends = [0.0, *known.values(), *(interval or ()), *(() if lower_is_better else (1.0,))]
    low, high = min(ends), max(ends)

    def at(mark: float) -> float:
        share = (mark - low) / ((high - low) or 1)
        return round(8 + (width - 16) * (1 - share if lower_is_better else share), 1)

    parts = [f'<line class="axis" x1="8" x2="{width - 8}" y1="11" y2="11"/>']
    if "trivial" in known:
        x = at(known["trivial"])
        parts.append(f'<line class="trivial" x1="{x}" x2="{x}" y1="4" y2="18"/>')
    if "shuffled" in known:
        x = at(known["shuffled"])
        parts.append(f'<path class="shuffled" d="M{x - 4} 7l8 8m0-8l-8 8"/>')
    if "teacher" in known:
        x = at(known["teacher"])
        parts.append(f'<path class="teacher" d="M{x} 4.5l6.5 6.5-6.5 6.5-6.5-6.5z"/>')
    if interval:
        parts.append(f'<line class="interval" x1="{at(interval[0])}" x2="{at(interval[1])}" y1="11" y2="11"/>')
    parts.append(f'<circle class="student" cx="{at(known["value"])}" cy="11" r="4.5"/>')
    return _svg(width, 22, label, parts, "strip")


def arms_chart(arms: Mapping[str, Sequence[tuple[str, float, float]]], label: str, width: int = 420) -> str:
    """Return means and standard errors as dots on lines, one line per group of arms.

    `arms` holds, per group (e.g. "200 labels"), (arm, mean, standard error).
    """
    figures = [(mean - error, mean + error) for group in arms.values() for _, mean, error in group]
    low, high = min(pair[0] for pair in figures), max(pair[1] for pair in figures)
    low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)
    left, height = 84, 34

    def at(mark: float) -> float:
        return round(left + (width - left - 12) * (mark - low) / ((high - low) or 1), 1)

    parts: list[str] = []
    for number, (group, entries) in enumerate(arms.items()):
        y = 16 + number * height
        parts.append(f'<text class="label" x="0" y="{y + 4}">{escape(group)}</text>')
        parts.append(f'<line class="axis" x1="{left}" x2="{width - 8}" y1="{y}" y2="{y}"/>')
        for place, (arm, mean, error) in enumerate(entries):
            level = y + (place - (len(entries) - 1) / 2) * 7
            parts.append(
                f'<line class="error {arm}" x1="{at(mean - error)}" x2="{at(mean + error)}" y1="{level}" y2="{level}"/>'
            )
            parts.append(f'<circle class="{arm}" cx="{at(mean)}" cy="{level}" r="4.5"><title>{arm} {mean:.3f}</title></circle>')
    bottom = 16 + len(arms) * height
    for share in (0.0, 0.5, 1.0):
        mark = low + share * (high - low)
        anchor = ("start", "middle", "end")[round(share * 2)]
        parts.append(f'<text class="tick" x="{at(mark)}" y="{bottom}" text-anchor="{anchor}">{mark:.2f}</text>')
    return _svg(width, bottom + 6, label, parts, "arms")


def curves(series: Mapping[str, Sequence[Point]], label: str, width: int = 300, height: int = 150) -> str:
    """Return lines over steps; each series has its own color (`c0`, `c1`, ...) and its name at its end."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    left, top, right, bottom = 38, 8, width - 8, height - 20

    def place(point: Point) -> str:
        x = left + (right - left) * (point[0] - first) / ((last - first) or 1)
        y = bottom - (bottom - top) * (point[1] - low) / ((high - low) or 1)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>',
        f'<text class="tick" x="{left - 5}" y="{top + 6}" text-anchor="end">{high:.3g}</text>',
        f'<text class="tick" x="{left - 5}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text class="tick" x="{left}" y="{height - 4}">{first:g}</text>',
        f'<text class="tick" x="{right}" y="{height - 4}" text-anchor="end">step {last:g}</text>',
    ]
    for number, line in enumerate(series.values()):
        parts.append(f'<polyline class="line c{number % 8}" points="{" ".join(map(place, line))}"/>')
    return _svg(width, height, label, parts, "curves")


def bars(shares: Mapping[str, float], label: str, width: int = 420) -> str:
    """Return horizontal bars of non-negative figures, e.g. seconds per stage."""
    most = max(shares.values(), default=0) or 1
    parts = []
    for number, (name, figure) in enumerate(shares.items()):
        y = 4 + number * 24
        length = round((width - 230) * figure / most, 1)
        parts.append(f'<text class="label" x="0" y="{y + 13}">{escape(name.replace("_", " "))}</text>')
        parts.append(f'<rect class="bar" x="150" y="{y}" width="{max(length, 1)}" height="16" rx="3"/>')
        parts.append(f'<text class="label" x="{150 + length + 8}" y="{y + 13}">{figure:.0f} s</text>')
    return _svg(width, 8 + 24 * len(shares), label, parts, "bars")


def _svg(width: int, height: float, label: str, parts: Sequence[str], kind: str) -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}">{"".join(parts)}</svg>'
    )
