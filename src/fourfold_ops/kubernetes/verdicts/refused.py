"""What the server would not have: a pod or a Job that admission refuses, a right that a credential lacks, a credential."""

import re

from fourfold_ops.kubernetes.verdicts.verdict import Verdict, short

MISSING = "create it, or correct kubernetes.yml"
AGAIN_LATER = "what runs goes on: the same command takes the run up again"


def refused(message: str, what: str = "pod") -> Verdict:
    """Return why the server lets no pod, or no Job, be made, from its own words."""
    lower = message.lower()
    told = re.sub(r"^Error creating: ", "", " ".join(message.split()))
    if "exceeded quota" in lower:
        return _quota(message, what)
    if "failed quota" in lower:
        return Verdict("refused", f"a quota refuses the {what}", "", short(told), "correct kubernetes.yml, or the quota")
    if "violates podsecurity" in lower:
        remedy = "use claims, not hostPath, in kubernetes.yml"
        return Verdict("refused", f"Pod Security refuses the {what}", "", short(told), remedy)
    if re.search(r'namespaces "[^"]*" not found|being terminated', lower):
        return _no_namespace(told)
    if "serviceaccount" in lower:
        return Verdict("refused", "the service account is missing", "", short(told), MISSING)
    if "priorityclass" in lower.replace(" ", ""):
        return Verdict("refused", "the priority class is missing", "", short(told), MISSING)
    if re.search(r"(maximum|minimum) \S+ usage per|limit to request ratio", lower):
        limits = (found := re.search(r"is forbidden: (.*)", told)) and found[1].strip("[]")
        remedy = "ask for what it allows in kubernetes.yml, or have it changed"
        return Verdict("refused", f"a LimitRange refuses the {what}", "", short(limits or told), remedy)
    if admission := _policy(told, what):
        return admission
    return Verdict("refused", f"the cluster refuses the {what}", "", short(told), "correct kubernetes.yml")


def _quota(message: str, what: str) -> Verdict:
    found = re.search(r"exceeded quota: ([^,]+), (.*)", message)
    return Verdict(
        "quota",
        f"quota {found[1] if found else ''} refuses the {what}".replace("  ", " "),
        "",
        short(found[2] if found else message),
        "wait for other work to end, ask for less, or have the quota raised",
    )


def _no_namespace(message: str) -> Verdict:
    ending = "being terminated" in message
    what = "the namespace is being deleted" if ending else "there is no such namespace"
    return Verdict("refused", what, "", short(message), "create it, or correct `namespace` in kubernetes.yml")


def _policy(message: str, what: str) -> Verdict | None:
    """Return what a webhook or a policy of the cluster's owner refuses."""
    remedy = "do what it asks for in kubernetes.yml, or talk to who runs the cluster"
    if found := re.search(r'admission webhook "([^"]+)" denied the request:? ?(.*)', message):
        return Verdict("refused", f"admission webhook {found[1]} refuses the {what}", "", short(found[2]), remedy)
    if found := re.search(r"ValidatingAdmissionPolicy '([^']+)'.* denied request: (.*)", message):
        return Verdict("refused", f"admission policy {found[1]} refuses the {what}", "", short(found[2]), remedy)
    if found := re.search(r'failed calling webhook "([^"]+)":? ?(.*)', message):
        remedy = "talk to who runs the cluster"
        return Verdict("refused", f"admission webhook {found[1]} does not answer", "", short(found[2]), remedy)
    return None


def forbidden(verb: str, resource: str, namespace: str, message: str) -> Verdict:
    """Return what a credential may not do; of what is forbidden by something else than its rights, that."""
    who = re.search(r'User "([^"]*)"', message)
    if (who is None and "is forbidden: " in message) or "admission webhook" in message or "AdmissionPolicy" in message:
        return refused(message, "Job" if resource == "jobs" else resource)
    if who is not None and who[1] in ("", "system:anonymous"):
        return unknown(message)
    return Verdict(
        "forbidden",
        f"not allowed to {verb} {resource} in namespace {namespace!r}",
        "",
        f"as {who[1]}" if who else short(message),
        "bind the Role of k8s/base to it, or use another context",
    )


def unknown(message: str) -> Verdict:
    """Return that the cluster does not know who asks."""
    remedy = f"log in again, or use another context; {AGAIN_LATER}"
    return Verdict("unknown", "the cluster does not accept the credentials, which may have expired", "", short(message), remedy)


def untrusted(server: str, message: str) -> Verdict:
    """Return that the server's certificate is not to be trusted."""
    remedy = "correct certificate-authority of the context, or the address"
    return Verdict("untrusted", f"the certificate of {server} is not to be trusted", "", short(message), remedy)
