"""Explains in one line why a step waits or has failed: what, where, evidence, remedy.

Pure functions of Jobs, pods and events, which are plain JSON objects:

- `pending`: why no pod runs yet
- `failed`: how a pod or a Job ended
- `refused`: why the server refused an object or a call
- `progress`: how far a step is, read from its log
"""

from fourfold_ops.kubernetes.verdicts.verdict import Verdict

__all__ = ["Verdict"]
