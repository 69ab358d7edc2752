"""A remote step's Job as it is followed. Belongs to the conductor's thread."""

import time
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.cluster.objects import OWNER_LABEL, Object, phase
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.steps import Step
from fourfold_ops.kubernetes.verdicts import Verdict
from fourfold_ops.kubernetes.verdicts.progress import Progress

LIVE = ("Running", "Succeeded")  # a pod that is done is no reason to say that the step waits


@dataclass
class ActiveJob:
    """One Job of one step."""

    step: Step
    spec: JobSpec
    submitted: float = field(default_factory=time.monotonic)
    job: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    replacing: bool = False  # an older Job of this name has to go first
    refusal: Verdict | None = None  # why the server would not have the Job yet
    has_run: bool = False
    was_done: bool = False  # before this drive
    reason: tuple[str, float] = ("", 0.0)  # why it waits, and since when
    told: set[str] = field(default_factory=set)  # pods whose end has been spoken of

    def owns(self, pod: Object) -> bool:
        """Tell whether a pod is of this very Job, not of a deleted one of the same name."""
        owner = pod["metadata"]["labels"].get(OWNER_LABEL)
        return owner is None or not self.job or owner == self.job["metadata"]["uid"]

    @property
    def live_pods(self) -> list[dict[str, Any]]:
        """Pods that run or have ended well, and are not being taken away."""
        return [pod for pod in self.pods.values() if phase(pod) in LIVE and "deletionTimestamp" not in pod["metadata"]]

    @property
    def num_pods(self) -> int:
        """How many pods it has when all are there."""
        return len(self.spec.parts) or self.spec.num_nodes

    @property
    def is_running(self) -> bool:
        """Whether work is being done: of pods that train together all are needed, of parts each works alone."""
        return len(self.live_pods) >= (1 if self.spec.parts else self.spec.num_nodes)
