"""One Job, in our words: what `manifest.py` and `pod.py` say in those of Kubernetes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.plan.settings import Resources


@dataclass(frozen=True)
class JobSpec:
    """One Job, in our words."""

    name: str
    command: tuple[str, ...]  # of the process; torchrun is put before it where several train together
    resources: Resources
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()  # of the work, one pod each; empty: not split
    service_account: str | None = None
    talks_to_api: bool = False  # the driver's pod does
    owner: Mapping[str, Any] | None = None

    @property
    def num_nodes(self) -> int:
        """Pods that train together."""
        return 1 if self.parts else self.resources.nodes or 1

    @property
    def num_processes(self) -> int:
        """Processes of torchrun in each pod."""
        return self.resources.processes or max(self.resources.gpus or 0, 1)

    @property
    def distributed(self) -> bool:
        """Whether torchrun starts the process."""
        return not self.parts and (self.num_nodes > 1 or self.num_processes > 1)
