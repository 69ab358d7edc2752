"""The comparison as lines for a terminal."""

from collections.abc import Iterator, Sequence

from fourfold_ops.reproduction.comparison import IDENTICAL, WITHIN, Comparison
from fourfold_ops.reproduction.inputs import SAME
from fourfold_ops.reproduction.metrics import MetricResult
from fourfold_ops.reproduction.outputs import FileChange, OutputResult

SHOWN = 10  # files of an output, and metrics; the JSON and HTML reports have all


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the report: outputs, what differs, metrics, environment, and the conclusion last."""
    yield from table([("stage", "output", "files", "result"), *(_row(output) for output in comparison.outputs)])
    for output in comparison.outputs:
        yield from _details(output)
    yield from _origin(comparison)
    yield from _metrics(comparison.metrics)
    for change in comparison.environment:
        yield f"{change.kind} {change.name}: {change.recorded} recorded, {change.found} here"
    yield from comparison.notes
    if comparison.first_node:
        yield f"First node that differs: {comparison.first_node}"
    yield conclusion(comparison)


def conclusion(comparison: Comparison) -> str:
    """Return the verdict in one sentence."""
    done = "Reproduced" if comparison.command else "Verified"
    if comparison.verdict == IDENTICAL:
        return f"{done}: every byte of {len(comparison.outputs)} outputs is as {comparison.title} recorded it."
    if comparison.verdict == WITHIN:
        return f"{done} within tolerance: this machine rounds differently, and every metric of {comparison.title} holds."
    return f"Not {done.lower()}: {comparison.title} recorded other content."


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows of text in aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def number(value: object) -> str:
    """Return a value of a metric for a table."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def describe(change: FileChange) -> str:
    """Return what is known of one file."""
    about = "; ".join(filter(None, [str(change.keys) if change.keys else "", change.note]))
    return f"{change.path}: {change.status}{f' ({about})' if about else ''}"


def _row(output: OutputResult) -> tuple[str, str, str, str]:
    changed = f", {output.num_changed} of {output.num_files} files" if output.num_changed else ""
    return output.stage, output.path, str(output.num_files), output.status + changed


def _details(output: OutputResult) -> Iterator[str]:
    for change in output.files[:SHOWN]:
        yield f"  {describe(change)}"
    if output.num_changed > SHOWN:
        yield f"  and {output.num_changed - SHOWN} more files of {output.path}"
    for note in output.notes:
        yield f"  {output.path}: {note}"
    if output.status == "missing":
        yield f"  {output.path} is absent. Run `dvc pull {output.path}`, or its stage."


def _origin(comparison: Comparison) -> Iterator[str]:
    for entry in comparison.inputs:
        if entry.status != SAME:
            users = ", ".join(entry.stages)
            yield f"input {entry.path} of {users}: {entry.status} (MD5 {entry.recorded} recorded, {entry.found} found)"
    for change in comparison.parameters:
        yield f"parameter {change.name} in {change.file}: {change.recorded} recorded, {change.found} in the file"
    yield from comparison.contradictions


def _metrics(metrics: Sequence[MetricResult]) -> Iterator[str]:
    changed = [metric for metric in metrics if metric.difference != 0.0 and metric.recorded != metric.found]
    if metrics:
        yield f"metrics: {len(metrics) - len(changed)} of {len(metrics)} values are equal"
    if changed:
        ordered = sorted(changed, key=lambda metric: metric.holds)
        rows = [("metric", "recorded", "found", "difference", "tolerance", "")]
        yield from table([*rows, *(_metric_row(metric) for metric in ordered[:SHOWN])])
    if len(changed) > SHOWN:
        yield f"and {len(changed) - SHOWN} more metrics"


def _metric_row(metric: MetricResult) -> tuple[str, ...]:
    difference = "" if metric.difference is None else f"{metric.difference:+.3g}"
    result = "" if metric.holds else "too large"
    return metric.name, number(metric.recorded), number(metric.found), difference, f"{metric.tolerance:.3g}", result
