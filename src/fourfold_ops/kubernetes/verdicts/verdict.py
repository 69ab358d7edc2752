"""The one line, and how long messages of the cluster are made short enough for it."""

from dataclasses import dataclass

LONGEST = 400  # characters of evidence


@dataclass(frozen=True)
class Verdict:
    """One line for the user. `kind` is for machines: the board, the tests, the decision whether to wait."""

    kind: str
    what: str
    where: str = ""
    evidence: str = ""
    remedy: str = ""

    def line(self, title: str) -> str:
        """Return "TITLE: what on WHERE; evidence; remedy"."""
        return f"{title}: {self.note}"

    @property
    def note(self) -> str:
        """The line without the title, for where the title stands beside it."""
        what = f"{self.what} on {self.where}" if self.where else self.what
        return "; ".join(part.strip(" .;") for part in (what, self.evidence, self.remedy) if part) + "."

    @property
    def waits_for_place(self) -> bool:
        """Whether time may mend it by itself: another pod ends, a node is added, a quota is raised."""
        return self.kind in ("unschedulable", "quota", "queue", "leaving")


def short(text: str) -> str:
    """Return a message on one line, cut where it is too long for evidence."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def innermost(text: str) -> str:
    """Return the end of a message in which every layer has put its own words before those of the one below."""
    flat = " ".join(text.split()).removesuffix(": unknown")  # containerd's own last word
    return flat if len(flat) <= LONGEST // 4 else short(": ".join(flat.split(": ")[-3:]))
