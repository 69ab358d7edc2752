"""State of a Job that the driver follows. Only used in the thread of the orchestrator."""

import time
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.cluster.objects import OWNER_LABEL, Object, phase
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.progress import Progress

LIVE = ("Running", "Succeeded")  # a step with a pod that has succeeded is not waiting


@dataclass
class ActiveJob:
    """A Job of a step, with its pods."""

    step: Step
    spec: JobSpec
    submitted: float = field(default_factory=time.monotonic)
    job: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    replacing: bool = False  # an older Job of this name is being deleted first
    refusal: Verdict | None = None  # why the server has not accepted the Job yet
    has_run: bool = False
    was_done: bool = False  # by an earlier driver
    reason: tuple[str, float] = ("", 0.0)  # kind of the verdict on why it waits, and since when
    reported: set[str] = field(default_factory=set)  # pods whose failure was reported

    def owns(self, pod: Object) -> bool:
        """Return whether a pod belongs to this Job and not to a deleted one of the same name."""
        owner = pod["metadata"]["labels"].get(OWNER_LABEL)
        return owner is None or not self.job or owner == self.job["metadata"]["uid"]

    @property
    def live_pods(self) -> list[dict[str, Any]]:
        """Pods that run or have succeeded, and are not being deleted."""
        return [pod for pod in self.pods.values() if phase(pod) in LIVE and "deletionTimestamp" not in pod["metadata"]]

    @property
    def num_pods(self) -> int:
        """Number of pods of the complete Job."""
        return len(self.spec.parts) or self.spec.num_nodes

    @property
    def is_running(self) -> bool:
        """Whether the step makes progress: for one part any pod is enough, pods that train together are all needed."""
        return len(self.live_pods) >= (1 if self.spec.parts else self.spec.num_nodes)
