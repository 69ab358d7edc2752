"""Why a step waits or has failed, in one line: what, where, evidence, remedy. Pure: Jobs, pods and events are plain JSON.

`pending`: why no pod runs yet. `failed`: how a pod or a Job ended. `refused`: what the server would not have.
"""

from fourfold_ops.kubernetes.verdicts.verdict import Verdict

__all__ = ["Verdict"]
