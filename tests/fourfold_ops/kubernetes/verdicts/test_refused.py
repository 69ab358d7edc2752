"""Verdicts on refusals of the API server."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.verdicts.refused import forbidden, refused, unauthenticated, untrusted

sys.path.insert(0, str(Path(__file__).parent))
from shapes import line


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": restricted volume types',
            "Pod Security refuses the pod",
        ),
        (
            'pods "x" is forbidden: error looking up service account ns/a: serviceaccount "a" not found',
            "service account is missing",
        ),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "priority class is missing"),
        ("something else", "the cluster refuses the pod"),
    ],
)
def test_refusals_by_admission_are_classified(message, what):
    assert what in line(refused(message))


def test_a_missing_permission_names_verb_resource_and_user():
    message = (
        'jobs.batch is forbidden: User "system:serviceaccount:ns:default" cannot create resource "jobs" in API group "batch"'
    )
    assert line(forbidden("create", "jobs", "ns", message), "t") == (
        "t: not allowed to create jobs in namespace 'ns'; as system:serviceaccount:ns:default; "
        "bind the Role of k8s/base to it, or use another context."
    )


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'Error creating: pods "x" is forbidden: [maximum cpu usage per Container is 2, but limit is 8, '
            "maximum memory usage per Container is 4Gi, but limit is 64Gi]",
            "a LimitRange refuses the pod; maximum cpu usage per Container is 2, but limit is 8, maximum memory usage per "
            "Container is 4Gi, but limit is 64Gi; request what it allows",
        ),
        (
            'Error creating: admission webhook "validate.kyverno.svc-fail" denied the request: label team is required',
            "admission webhook validate.kyverno.svc-fail refuses the pod; label team is required; "
            "change kubernetes.yml as it demands",
        ),
        (
            'Error creating: Internal error occurred: failed calling webhook "w.example": Post "https://w": connection refused',
            'admission webhook w.example does not answer; Post "https://w": connection refused; '
            "contact the cluster administrator",
        ),
        (
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'all' denied request: only by digest",
            "admission policy images refuses the pod; only by digest",
        ),
        (
            'Error creating: pods "x" is forbidden: failed quota: team: must specify requests.ephemeral-storage for: step',
            'a quota refuses the pod; pods "x" is forbidden: failed quota: team: must specify requests.ephemeral-storage',
        ),
        ('namespaces "moon" not found', 'the namespace does not exist; namespaces "moon" not found; create it'),
    ],
)
def test_the_refusing_component_is_named_and_quoted(message, words):
    assert words in line(refused(message))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'jobs.batch "x" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: count/jobs.batch=5, '
            "limited: count/jobs.batch=5",
            "quota team refuses the Job; requested: count/jobs.batch=1",
        ),
        (
            'jobs.batch "x" is forbidden: unable to create new content in namespace ns because it is being terminated',
            "the namespace is being deleted; ",
        ),
        (
            'admission webhook "w.example" denied the request: no',
            "admission webhook w.example refuses the Job; no; change kubernetes.yml",
        ),
        ('jobs.batch is forbidden: User "system:anonymous" cannot create resource "jobs"', "does not accept the credentials"),
    ],
)
def test_refusals_other_than_permissions_do_not_mention_a_role(message, words):
    found = line(forbidden("create", "jobs", "ns", message))
    assert words in found and "Role" not in found


def test_expired_tokens_and_invalid_certificates_are_reported():
    assert line(unauthenticated("Unauthorized")).startswith(
        "pretraining/train: the cluster does not accept the credentials, which may have expired; Unauthorized; log in again"
    )
    assert "the certificate of https://x:6443 is not trusted; self-signed certificate; correct" in line(
        untrusted("https://x:6443", "self-signed certificate")
    )
