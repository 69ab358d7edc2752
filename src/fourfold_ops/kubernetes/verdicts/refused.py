"""Explains refusals of the API server: admission control, missing permissions, credentials and certificates."""

import re

from fourfold_ops.kubernetes.verdicts.verdict import Verdict, short

MISSING = "create it, or correct kubernetes.yml"
JOBS_CONTINUE = "running Jobs continue: the same command resumes the run"


def refused(message: str, what: str = "pod") -> Verdict:
    """Return why the server refuses to create a pod or a Job.

    Args:
        message: The message of the server or of an event.
        what: The refused object.
    """
    lower = message.lower()
    text = re.sub(r"^Error creating: ", "", " ".join(message.split()))
    if "exceeded quota" in lower:
        return _quota(message, what)
    if "failed quota" in lower:
        return Verdict("refused", f"a quota refuses the {what}", "", short(text), "correct kubernetes.yml, or the quota")
    if "violates podsecurity" in lower:
        remedy = "use claims, not hostPath, in kubernetes.yml"
        return Verdict("refused", f"Pod Security refuses the {what}", "", short(text), remedy)
    if re.search(r'namespaces "[^"]*" not found|being terminated', lower):
        return _no_namespace(text)
    if "serviceaccount" in lower:
        return Verdict("refused", "the service account is missing", "", short(text), MISSING)
    if "priorityclass" in lower.replace(" ", ""):
        return Verdict("refused", "the priority class is missing", "", short(text), MISSING)
    if re.search(r"(maximum|minimum) \S+ usage per|limit to request ratio", lower):
        limits = (found := re.search(r"is forbidden: (.*)", text)) and found[1].strip("[]")
        remedy = "request what it allows in kubernetes.yml, or have it changed"
        return Verdict("refused", f"a LimitRange refuses the {what}", "", short(limits or text), remedy)
    if admission := _policy(text, what):
        return admission
    return Verdict("refused", f"the cluster refuses the {what}", "", short(text), "correct kubernetes.yml")


def _quota(message: str, what: str) -> Verdict:
    found = re.search(r"exceeded quota: ([^,]+), (.*)", message)
    return Verdict(
        "quota",
        f"quota {found[1] if found else ''} refuses the {what}".replace("  ", " "),
        "",
        short(found[2] if found else message),
        "wait for other work to end, request less, or have the quota raised",
    )


def _no_namespace(message: str) -> Verdict:
    ending = "being terminated" in message
    what = "the namespace is being deleted" if ending else "the namespace does not exist"
    return Verdict("refused", what, "", short(message), "create it, or correct `namespace` in kubernetes.yml")


def _policy(message: str, what: str) -> Verdict | None:
    """Return the verdict if an admission webhook or policy of the cluster is the cause."""
    remedy = "change kubernetes.yml as it demands, or contact the cluster administrator"
    if found := re.search(r'admission webhook "([^"]+)" denied the request:? ?(.*)', message):
        return Verdict("refused", f"admission webhook {found[1]} refuses the {what}", "", short(found[2]), remedy)
    if found := re.search(r"ValidatingAdmissionPolicy '([^']+)'.* denied request: (.*)", message):
        return Verdict("refused", f"admission policy {found[1]} refuses the {what}", "", short(found[2]), remedy)
    if found := re.search(r'failed calling webhook "([^"]+)":? ?(.*)', message):
        remedy = "contact the cluster administrator"
        return Verdict("refused", f"admission webhook {found[1]} does not answer", "", short(found[2]), remedy)
    return None


def forbidden(verb: str, resource: str, namespace: str, message: str) -> Verdict:
    """Return the verdict on status 403: a missing permission, or an admission check that also answers with 403."""
    who = re.search(r'User "([^"]*)"', message)
    if (who is None and "is forbidden: " in message) or "admission webhook" in message or "AdmissionPolicy" in message:
        return refused(message, "Job" if resource == "jobs" else resource)
    if who is not None and who[1] in ("", "system:anonymous"):
        return unauthenticated(message)
    return Verdict(
        "forbidden",
        f"not allowed to {verb} {resource} in namespace {namespace!r}",
        "",
        f"as {who[1]}" if who else short(message),
        "bind the Role of k8s/base to it, or use another context",
    )


def unauthenticated(message: str) -> Verdict:
    """Return the verdict on status 401: invalid or expired credentials."""
    remedy = f"log in again, or use another context; {JOBS_CONTINUE}"
    return Verdict(
        "unauthenticated", "the cluster does not accept the credentials, which may have expired", "", short(message), remedy
    )


def untrusted(server: str, message: str) -> Verdict:
    """Return the verdict on an invalid certificate of the server."""
    remedy = "correct certificate-authority of the context, or the address"
    return Verdict("untrusted", f"the certificate of {server} is not trusted", "", short(message), remedy)
