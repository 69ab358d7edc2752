"""One part of the checks: its line, and what went wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The result of one part."""

    name: str
    text: str  # counts
    problems: tuple[str, ...] = ()
    is_skipped: bool = False  # not run, for a reason that `text` names

    def show(self) -> None:
        """Print one line, and the problems below it."""
        outcome = "FAILED" if self.problems else "skipped" if self.is_skipped else "ok"
        print(f"{outcome:<7} {self.name:<22} {self.text}", flush=True)
        for problem in self.problems:
            print(f"        {problem}", flush=True)
