"""Remedies by the words that clusters, container runtimes and programs use. The first matching pattern counts."""

import re

Table = tuple[tuple[str, str], ...]  # pattern in lower case → remedy

PULLING: Table = (
    (r"no match for platform|exec format", "build it for the processor of the nodes (docker build --platform=…)"),
    (r"unauthorized|denied|forbidden|\b40[13]\b", "set pull_secrets that may read it, or correct `image` in kubernetes.yml"),
    (r"toomanyrequests|rate limit", "the registry limits the number of pulls: wait, or set pull_secrets"),
    (
        r"x509|no such host|refused|timeout|timed out|unreachable",
        "the node cannot reach the registry: correct `image` in kubernetes.yml",
    ),
)
PULLING_ELSE = "correct `image` in kubernetes.yml, push it, or set pull_secrets"

STARTING: Table = (
    (r"exec format error", "the image is for another processor: build it for that of the nodes (docker build --platform=…)"),
    (r"secret", "create the secret, or correct `secrets` in kubernetes.yml"),
    (r"chdir|working directory|cwd", "correct `project` in kubernetes.yml: the image has no such folder"),
    (r"executable file not found|command not found|no such file", "correct `command` in kubernetes.yml, or the image"),
    (r"permission denied", "the user of the image may not run it: see `security` in kubernetes.yml"),
)
STARTING_ELSE = "correct kubernetes.yml, or the image"

PLACING: Table = (
    (
        r"volume node affinity",
        "no suitable node reaches its volume: use a claim that all nodes reach, or change node_selector",
    ),
    (r"insufficient|too many pods", "request less in kubernetes.yml, or add a node"),
    (r"taint", "set `tolerations` in kubernetes.yml, or add a node"),
    (r"affinity|selector", "correct `node_selector` in kubernetes.yml, or add a node"),
)
PLACING_ELSE = "request less in kubernetes.yml, or add a node"

EVICTING: Table = (
    (r'volume "scratch"|ephemeral local storage|ephemeral-storage', "raise `scratch` in kubernetes.yml, or write less there"),
    (r'volume "shared-memory"', "raise shared_memory in kubernetes.yml"),
    (r"memory", "request the memory that it uses in kubernetes.yml"),
)

FAILING: Table = (  # the last lines of the log
    (
        r"(cuda|hip) out of memory|outofmemoryerror",
        "the GPU has too little memory: reduce the batch size, or request a larger GPU",
    ),
    (r"shared memory|bus error", "raise shared_memory in kubernetes.yml"),
    (r"no space left on device", "free space on the volume, or raise `scratch` in kubernetes.yml"),
    (r"disk quota exceeded", "free space on the volume, or have its quota raised"),
    *STARTING[:1],
)


def remedy(text: str, table: Table, otherwise: str = "") -> str:
    """Return the remedy for a message, or `otherwise`."""
    return next((what for pattern, what in table if re.search(pattern, text.lower())), otherwise)
