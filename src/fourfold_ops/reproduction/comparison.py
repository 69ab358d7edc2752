"""The result of a reproduction or verification: everything that was compared, and whether it holds."""

from dataclasses import asdict, dataclass, field
from typing import Any

from fourfold_ops.reproduction.environment import EnvironmentChange, decides_bits
from fourfold_ops.reproduction.inputs import DIFFERENT, MISSING, InputResult, ParameterChange
from fourfold_ops.reproduction.metrics import MetricResult
from fourfold_ops.reproduction.outputs import SAME, OutputResult

IDENTICAL, WITHIN, DIFFERS = "identical", "within tolerance", "different"


@dataclass(frozen=True)
class Comparison:
    """What was compared, with the original.

    Attributes:
        title: What was reproduced or verified, as the user named it.
        commit: Its full id; "" for a working tree.
        run_id: Its run in MLflow, or "".
        command: The command that was repeated; "" if nothing was run.
        stages: The stages that were compared.
        outputs: Their outputs.
        inputs: What they read from outside of the pipeline.
        parameters: Parameters that differ from the lock.
        contradictions: Sentences about a lock that cannot be right.
        metrics: Every value of the metrics files.
        environment: Packages and facts of the machine that differ. They explain differences and are none by themselves.
        first_node: The first node whose results differ, or "".
        notes: Sentences about the original that a reader must know.
        other_machine: Whether precision, instruction set, threads and similar differ from the record.
    """

    title: str
    commit: str
    run_id: str
    command: str
    stages: tuple[str, ...]
    outputs: tuple[OutputResult, ...]
    inputs: tuple[InputResult, ...] = ()
    parameters: tuple[ParameterChange, ...] = ()
    contradictions: tuple[str, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    environment: tuple[EnvironmentChange, ...] = field(default=())
    first_node: str = ""
    notes: tuple[str, ...] = ()

    @property
    def other_machine(self) -> bool:
        """Whether other last bits are to be expected."""
        return decides_bits(self.environment)

    @property
    def verdict(self) -> str:
        """IDENTICAL, WITHIN or DIFFERS.

        Metrics within their tolerance suffice only on another kind of machine, and only if code, parameters, data from outside
        and the lock are right: on the same machine, every byte is the same.
        """
        if self._wrong_origin():
            return DIFFERS
        if all(output.status == SAME for output in self.outputs):
            return IDENTICAL
        is_close = bool(self.metrics) and all(metric.holds for metric in self.metrics)
        is_complete = all(output.status != MISSING for output in self.outputs)
        return WITHIN if self.command and self.other_machine and is_close and is_complete else DIFFERS

    @property
    def holds(self) -> bool:
        """Whether the record is confirmed."""
        return self.verdict != DIFFERS

    def _wrong_origin(self) -> bool:
        return bool(
            self.contradictions or self.parameters or any(entry.status in (DIFFERENT, MISSING) for entry in self.inputs)
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"verdict": self.verdict, "holds": self.holds, "other_machine": self.other_machine, **asdict(self)}
