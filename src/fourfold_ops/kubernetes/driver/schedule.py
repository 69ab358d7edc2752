"""The order of work as a state machine: which steps may start, which are over. Pure; the conductor moves it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from fourfold_ops.kubernetes.plan.steps import Step


class State(Enum):
    """Where a step is."""

    WAITING = "waiting"  # for other steps
    STARTING = "starting"  # its turn has come
    PENDING = "pending"  # submitted, no pod runs yet
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"  # was done before
    FAILED = "failed"
    CANCELLED = "cancelled"


GOOD = (State.DONE, State.SKIPPED)
AT_WORK = (State.STARTING, State.PENDING, State.RUNNING)


@dataclass
class Schedule:
    """States of all steps."""

    steps: dict[str, Step]
    state: dict[str, State] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)  # steps whose Job has done work in this drive
    halted: bool = False  # nothing more is started

    @classmethod
    def of(cls, steps: Iterable[Step]) -> "Schedule":
        """Return the schedule before anything has started."""
        table = {step.name: step for step in steps}
        return cls(table, dict.fromkeys(table, State.WAITING))

    def ready(self) -> list[Step]:
        """Return the steps that may start now, in the order of the plan."""
        if self.halted:
            return []
        waiting = [step for name, step in self.steps.items() if self.state[name] is State.WAITING]
        return [step for step in waiting if all(self.state[name] in GOOD for name in step.needs)]

    def at_work(self) -> list[Step]:
        """Return the steps that have started and are not over."""
        return [step for name, step in self.steps.items() if self.state[name] in AT_WORK]

    def is_over(self) -> bool:
        """Tell whether nothing is at work and nothing may start."""
        return not self.at_work() and not self.ready()

    def follows_fresh(self, step: Step) -> bool:
        """Tell whether a step before this one, directly or not, has worked anew, so that an old result does not count."""
        return any(name in self.fresh or self.follows_fresh(self.steps[name]) for name in step.needs)
