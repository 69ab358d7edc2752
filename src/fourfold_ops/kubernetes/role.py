"""What the driver may do in its namespace: a Role made of the table that the client itself is held to. Pure."""

from typing import Any

from fourfold_ops.kubernetes.client import PERMISSIONS


def rules() -> list[dict[str, Any]]:
    """Return the Role's rules, one for each resource; nothing else is ever asked for."""
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in sorted(PERMISSIONS.items())
    ]
