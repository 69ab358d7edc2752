import re
from pathlib import Path

from fourfold_ops.kubernetes import client
from fourfold_ops.kubernetes.role import rules

SOURCE = Path(client.__file__).parent


def test_the_role_lists_the_verbs_that_the_client_is_held_to_and_nothing_else():
    assert {(r["apiGroups"][0], r["resources"][0]): tuple(r["verbs"]) for r in rules()} == client.PERMISSIONS
    assert not any("*" in r["verbs"] or "*" in r["resources"] for r in rules())
    assert all(r["resources"][0] not in ("secrets", "roles", "rolebindings", "pods/exec") for r in rules())


def test_every_permission_is_used_somewhere():
    """A right that nothing needs is one too many."""
    text = "".join(path.read_text() for path in SOURCE.glob("*.py"))
    used = set(re.findall(r'cluster\.(create|delete|get|all)\("(\w+)"', text)) | {
        ("watch", "jobs"),
        ("watch", "pods"),
        ("watch", "events"),
    }
    used = {("list" if verb == "all" else verb, resource) for verb, resource in used} | {
        ("get", "pods/log"),
        ("list", "events"),
    }
    granted = {(verb, resource) for (_, resource), verbs in client.PERMISSIONS.items() for verb in verbs}
    assert used == granted
