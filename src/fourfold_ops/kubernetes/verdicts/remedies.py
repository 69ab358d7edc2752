"""What to do, by the words that clusters, runtimes and programs use. The first pattern that fits counts. Pure."""

import re

Table = tuple[tuple[str, str], ...]  # pattern in lower case → what to do

PULLING: Table = (
    (r"no match for platform|exec format", "build it for the nodes' processor (docker build --platform=…)"),
    (r"unauthorized|denied|forbidden|\b40[13]\b", "name pull_secrets that may read it, or correct `image` in kubernetes.yml"),
    (r"toomanyrequests|rate limit", "the registry lets nobody pull so often: wait, or name pull_secrets"),
    (
        r"x509|no such host|refused|timeout|timed out|unreachable",
        "the node cannot reach the registry: correct `image` in kubernetes.yml",
    ),
)
PULLING_ELSE = "correct `image` in kubernetes.yml, push it, or name pull_secrets"

STARTING: Table = (
    (r"exec format error", "the image is for another processor: build it for the nodes' (docker build --platform=…)"),
    (r"secret", "create the secret, or correct `secrets` in kubernetes.yml"),
    (r"chdir|working directory|cwd", "correct `project` in kubernetes.yml: the image has no such folder"),
    (r"executable file not found|command not found|no such file", "correct `command` in kubernetes.yml, or the image"),
    (r"permission denied", "the image's user has to be allowed to run it: see `security` in kubernetes.yml"),
)
STARTING_ELSE = "correct kubernetes.yml, or the image"

PLACING: Table = (
    (r"volume node affinity", "its volume lies where no node fits: use a claim that all nodes reach, or another node_selector"),
    (r"insufficient|too many pods", "ask for less in kubernetes.yml, or add a node"),
    (r"taint", "name `tolerations` in kubernetes.yml, or add a node"),
    (r"affinity|selector", "correct `node_selector` in kubernetes.yml, or add a node"),
)
PLACING_ELSE = "ask for less in kubernetes.yml, or add a node"

EVICTING: Table = (
    (r'volume "scratch"|ephemeral local storage|ephemeral-storage', "raise `scratch` in kubernetes.yml, or write less there"),
    (r'volume "shared-memory"', "raise shared_memory in kubernetes.yml"),
    (r"memory", "ask for the memory that it uses in kubernetes.yml"),
)

FAILING: Table = (  # the code's own last words
    (r"(cuda|hip) out of memory|outofmemoryerror", "the GPU is too small: work on less at once, or ask for a larger one"),
    (r"shared memory|bus error", "raise shared_memory in kubernetes.yml"),
    (r"no space left on device", "free space on the volume, or raise `scratch` in kubernetes.yml"),
    (r"disk quota exceeded", "free space on the volume, or have its quota raised"),
    *STARTING[:1],
)


def remedy(text: str, table: Table, otherwise: str = "") -> str:
    """Return what to do about a message."""
    return next((what for pattern, what in table if re.search(pattern, text.lower())), otherwise)
