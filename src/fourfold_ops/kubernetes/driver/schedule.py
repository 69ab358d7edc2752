"""State of each step, and which steps may start."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from fourfold_ops.kubernetes.plan.steps import Step


class State(Enum):
    """State of a step."""

    WAITING = "waiting"  # for the steps that it needs
    STARTING = "starting"  # being submitted
    PENDING = "pending"  # submitted, but no pod runs yet
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"  # done by an earlier driver
    FAILED = "failed"
    CANCELLED = "cancelled"


SUCCESS = (State.DONE, State.SKIPPED)
ACTIVE = (State.STARTING, State.PENDING, State.RUNNING)


@dataclass
class Schedule:
    """The states of all steps of a run."""

    steps: dict[str, Step]
    state: dict[str, State] = field(default_factory=dict)
    rerun: set[str] = field(default_factory=set)  # names of steps that have run under this driver
    halted: bool = False  # no further step starts

    @classmethod
    def of(cls, steps: Iterable[Step]) -> "Schedule":
        """Return the initial schedule."""
        table = {step.name: step for step in steps}
        return cls(table, dict.fromkeys(table, State.WAITING))

    def ready(self) -> list[Step]:
        """Return the steps that may start, in the order of the plan."""
        if self.halted:
            return []
        waiting = [step for name, step in self.steps.items() if self.state[name] is State.WAITING]
        return [step for step in waiting if all(self.state[name] in SUCCESS for name in step.needs)]

    def active(self) -> list[Step]:
        """Return the steps that have started and have not ended."""
        return [step for name, step in self.steps.items() if self.state[name] in ACTIVE]

    def is_over(self) -> bool:
        """Return whether no step is active and none may start."""
        return not self.active() and not self.ready()

    def follows_rerun(self, step: Step) -> bool:
        """Return whether any predecessor has run under this driver, so that an older result is outdated."""
        return any(name in self.rerun or self.follows_rerun(self.steps[name]) for name in step.needs)
