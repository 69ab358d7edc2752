"""Description of a Job, from which `manifests` builds the Kubernetes objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.plan.settings import Resources


@dataclass(frozen=True)
class JobSpec:
    """One Job: a command, the resources of its pods, and what identifies it."""

    name: str
    command: tuple[str, ...]  # of the process; the launcher is put before it if several train together
    resources: Resources
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()  # numbers of the parts of a split step, one pod each; empty: not split
    service_account: str | None = None
    talks_to_api: bool = False  # mount the token of the service account; only the driver needs it
    owner: Mapping[str, Any] | None = None  # owner reference: the Job is deleted with that object

    @property
    def num_nodes(self) -> int:
        """Number of pods that train together."""
        return 1 if self.parts else self.resources.nodes or 1

    @property
    def num_processes(self) -> int:
        """Number of processes that torchrun starts in each pod."""
        return self.resources.processes or max(self.resources.gpus or 0, 1)

    @property
    def distributed(self) -> bool:
        """Whether torchrun starts the processes."""
        return not self.parts and (self.num_nodes > 1 or self.num_processes > 1)
