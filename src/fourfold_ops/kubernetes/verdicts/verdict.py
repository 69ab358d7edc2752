"""The verdict on a step, and shortening of messages for it."""

from dataclasses import dataclass

MAX_EVIDENCE = 400  # characters


@dataclass(frozen=True)
class Verdict:
    """Why a step waits or has failed.

    Attributes:
        kind: A word for the code: the display, the tests and the decision whether to wait.
        what: What happened.
        where: The node, and the training step if it is known.
        evidence: The message of the cluster or of the code.
        remedy: What the user can do.
    """

    kind: str
    what: str
    where: str = ""
    evidence: str = ""
    remedy: str = ""

    def line(self, title: str) -> str:
        """Return "TITLE: WHAT on WHERE; EVIDENCE; REMEDY."."""
        return f"{title}: {self.note}"

    @property
    def note(self) -> str:
        """The line without the title, for tables that have a column of titles."""
        what = f"{self.what} on {self.where}" if self.where else self.what
        return "; ".join(part.strip(" .;") for part in (what, self.evidence, self.remedy) if part) + "."

    @property
    def may_resolve(self) -> bool:
        """Whether waiting may resolve it: another pod ends, a node is added, a quota is raised."""
        return self.kind in ("unschedulable", "quota", "queue", "leaving")


def short(text: str) -> str:
    """Return a message on one line, truncated if it is too long for evidence."""
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_EVIDENCE else flat[: MAX_EVIDENCE - 1] + "…"


def innermost(text: str) -> str:
    """Return the end of a long message, in which every layer of software prefixes the message of the next one."""
    flat = " ".join(text.split()).removesuffix(": unknown")  # containerd appends this to every message
    return flat if len(flat) <= MAX_EVIDENCE // 4 else short(": ".join(flat.split(": ")[-3:]))
