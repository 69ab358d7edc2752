"""The lines that a user reads when the server would not have something."""

import sys
from pathlib import Path

import pytest

from fourfold_ops.kubernetes.verdicts.refused import forbidden, refused

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
def test_what_admission_refuses_is_told_apart(message, what):
    assert what in line(refused(message))


def test_forbidden_says_which_verb_on_which_resource_as_whom():
    message = (
        'jobs.batch is forbidden: User "system:serviceaccount:ns:default" cannot create resource "jobs" in API group "batch"'
    )
    assert line(forbidden("create", "jobs", "ns", message), "t") == (
        "t: not allowed to create jobs in namespace 'ns'; as system:serviceaccount:ns:default; "
        "bind the Role of k8s/base to it, or use another context."
    )
