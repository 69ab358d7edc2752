"""What the server would not have: a pod or a Job that admission refuses, a right that a credential lacks."""

import re

from fourfold_ops.kubernetes.verdicts.verdict import Verdict, short


def refused(message: str) -> Verdict:
    """Return why the server lets no pod (or no Job) be made, from its own words."""
    lower = message.lower()
    if "exceeded quota" in lower:
        return _quota(message)
    if "violates podsecurity" in lower:
        remedy = "use claims, not hostPath, in kubernetes.yml"
        return Verdict("refused", "Pod Security refuses the pod", "", short(message), remedy)
    if "serviceaccount" in lower:
        return Verdict("refused", "the service account is missing", "", short(message), "create it, or correct kubernetes.yml")
    if "priorityclass" in lower.replace(" ", ""):
        return Verdict("refused", "the priority class is missing", "", short(message), "create it, or correct kubernetes.yml")
    return Verdict("refused", "the cluster refuses the pod", "", short(message), "correct kubernetes.yml")


def _quota(message: str) -> Verdict:
    found = re.search(r"exceeded quota: ([^,]+), (.*)", message)
    return Verdict(
        "quota",
        f"quota {found[1] if found else ''} refuses the pod".replace("  ", " "),
        "",
        short(found[2] if found else message),
        "wait for other work to end, ask for less, or have the quota raised",
    )


def forbidden(verb: str, resource: str, namespace: str, message: str) -> Verdict:
    """Return what a credential may not do."""
    if "exceeded quota" in message:
        return refused(message)
    who = re.search(r'User "([^"]+)"', message)
    return Verdict(
        "forbidden",
        f"not allowed to {verb} {resource} in namespace {namespace!r}",
        "",
        f"as {who[1]}" if who else short(message),
        "bind the Role of k8s/base to it, or use another context",
    )
