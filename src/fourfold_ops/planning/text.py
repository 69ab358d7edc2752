"""A plan as text, as one paragraph, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fourfold_ops.planning.changes import phrases_of, summary
from fourfold_ops.planning.checks import Problem, readable
from fourfold_ops.planning.plan import StagePlan
from fourfold_ops.planning.project import Storage

MAX_CHANGES, MAX_SHORT = 5, 2  # phrases of one stage
MAX_FOLDERS = 3  # names in one line
SHORT_TEXTS = {
    "make": "makes {} again",
    "maybe": "makes {} again unless their inputs come out as they were",
    "repair": "makes damaged files of {} again",
    "keep": "keeps {}",
}


@dataclass(frozen=True)
class WholePlan:
    """Everything that `kedro plan` reports.

    Attributes:
        command: The command that would run.
        stages: The plan of each stage, in order.
        problems: What would make the run fail.
        notes: What the user should know besides.
        needed: Bytes that the run adds, about.
        free: Free bytes of the disk.
        jobs: One line for each Job that the runner would submit.
        storage: What the results of the configured data take; None if that cannot be told.
    """

    command: str
    stages: Sequence[StagePlan]
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    needed: int = 0
    free: int = 0
    jobs: Sequence[str] = ()
    storage: Storage | None = None

    @property
    def running(self) -> list[StagePlan]:
        """The stages that run."""
        return [stage for stage in self.stages if stage.runs]

    @property
    def exit_code(self) -> int:
        """0, or the exit code with which the run would end at once."""
        return self.problems[0].exit_code if self.problems else 0

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "command": self.command,
            "stages": [_stage_json(stage) for stage in self.stages],
            "seconds": round(sum(_seconds(stage) for stage in self.running), 1),
            "memory_bytes": max((stage.peak_bytes for stage in self.running), default=0),
            "disk": {"needed_bytes": self.needed, "free_bytes": self.free},
            "storage": {**self.storage.values, "needed_bytes": self.storage.needed} if self.storage else None,
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
            "jobs": list(self.jobs),
        }


def long_text(plan: WholePlan) -> str:
    """Return the plan with all reasons, folders and costs."""
    width = max((len(stage.name) for stage in plan.stages), default=0)
    lines = [f"Plan of `{plan.command}`", ""]
    for stage in plan.stages:
        first, *others = _stage_lines(stage)
        lines += [f"  {stage.name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in others)]
    lines += ["", *plan.storage.lines] if plan.storage else []
    lines += ["", _total(plan)]
    lines += ["Jobs that would be submitted:", *(f"  {job}" for job in plan.jobs)] if plan.jobs else []
    lines += [f"Note: {note}" for note in plan.notes]
    lines += [f"Cannot run: {problem.text}" for problem in plan.problems]
    return "\n".join(lines)


def short_text(plan: WholePlan) -> str:
    """Return the plan in a few lines, for the start of a run."""
    kept = [stage.name for stage in plan.stages if not stage.runs]
    lines = ["Plan:"]
    lines += [f"  {stage.name}: {summary(stage.changes, MAX_SHORT)}" for stage in plan.running]
    lines += [f"  unchanged: {', '.join(kept)}"] if kept else []
    return "\n".join([*lines, f"  {_total(plan)}"])


def _stage_lines(stage: StagePlan) -> list[str]:
    if not stage.runs:
        return ["reuse"]
    phrases = phrases_of(stage.changes)
    rest = [f"and {len(phrases) - MAX_CHANGES} more"] if len(phrases) > MAX_CHANGES else []
    lines = [f"run    {phrases[0]}", *(f"       {phrase}" for phrase in [*phrases[1:MAX_CHANGES], *rest])]
    return [*lines, *(f"       {line}" for line in [*_folder_lines(stage), _cost(stage)])]


def _folder_lines(stage: StagePlan) -> list[str]:
    """Return what happens to the claimed folders: a line for each that leaves something aside, one for all others alike."""
    lines = []
    for folder in stage.folders:
        if folder.action in ("make", "maybe") and folder.aside:
            unless = " unless its inputs come out as they were" if folder.action == "maybe" else ""
            lines.append(f"makes {folder.path} again{unless}; the present content moves to {folder.aside}")
        elif folder.action == "restore":
            lines.append(f"restores {folder.path} from {folder.aside}")
    for action, text in SHORT_TEXTS.items():
        if names := [one.path for one in stage.folders if one.action == action and not one.aside]:
            lines.append(text.format(", ".join(names) if len(names) <= MAX_FOLDERS else f"{len(names)} folders"))
    return lines


def _cost(stage: StagePlan) -> str:
    if not stage.seconds:
        return "time unknown: it has not been measured here"
    if not stage.makes_again:
        return f"seconds: it finds its work done (which took {duration(stage.seconds)})"
    memory = f", {readable(stage.peak_bytes)} of memory" if stage.peak_bytes else ""
    return f"last time {duration(stage.seconds)}{memory}, {readable(stage.size)} of results"


def _total(plan: WholePlan) -> str:
    running = plan.running
    if not running:
        return "Nothing to do: every result is up to date."
    unknown = [stage.name for stage in running if not stage.seconds]
    seconds = sum(_seconds(stage) for stage in running)
    is_sure = not any(folder.action == "maybe" for stage in running for folder in stage.folders)
    time = f", {'about' if is_sure else 'at most about'} {duration(seconds)}" if seconds else ""
    if len(unknown) < len(running):
        time += f" without {', '.join(unknown)}" if unknown else ""
    else:
        time = ", for a time that has not been measured here"
    peak = max(stage.peak_bytes for stage in running)
    memory = f"; {readable(peak)} of memory" if peak else ""
    disk = f"; about {readable(plan.needed)} of disk, {readable(plan.free)} free" if plan.needed else ""
    return f"{len(running)} of {len(plan.stages)} stages run{time}{memory}{disk}."


def duration(seconds: float) -> str:
    """Return a duration for people, e.g. "8 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _seconds(stage: StagePlan) -> float:
    """Return what a stage takes; one that finds its work done takes next to nothing."""
    return stage.seconds if stage.makes_again else 0.0


def _stage_json(stage: StagePlan) -> dict[str, Any]:
    return {
        "name": stage.name,
        "action": "run" if stage.runs else "reuse",
        "changes": [{**asdict(change), "text": change.text} for change in stage.changes],
        "folders": [asdict(folder) for folder in stage.folders],
        "seconds": stage.seconds,
        "memory_bytes": stage.peak_bytes,
        "result_bytes": stage.size,
    }
