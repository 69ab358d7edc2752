"""What a run covers: which stages ran as a whole, and whether the results that it builds on belong to its code."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fourfold_ops.tracking import names


@dataclass(frozen=True)
class Coverage:
    """The stages of a run, in the order of the pipeline.

    Attributes:
        whole: Stages of which all nodes ran.
        part: Stages of which some nodes ran.
        absent: Stages of the default pipeline of which no node ran.
        recorded: Whether dvc.lock names the results of every stage in `whole`; None without DVC.
        outdated: Stages that the run builds on whose results belong to other code, parameters or data.
    """

    whole: tuple[str, ...]
    part: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    recorded: bool | None = None
    outdated: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Return whether every stage ran as a whole."""
        return not self.part and not self.absent

    def tags(self) -> dict[str, str]:
        """Return the tags of parent run, stage runs and model versions."""
        tags = {names.STAGES: ", ".join(self.whole), names.SCOPE: names.WHOLE if self.is_whole else names.PARTIAL}
        if self.recorded is not None:
            tags[names.RECORDED] = str(self.recorded and not self.part).lower()
        return tags | ({names.OUTDATED: ", ".join(self.outdated)} if self.outdated else {})

    def warnings(self) -> list[str]:
        """Return what a reader of the numbers must know, as sentences."""
        found = []
        if self.part:
            found.append(f"Only part of {_listed(self.part)} ran.")
        if self.absent and (ran := (*self.whole, *self.part)):
            found.append(f"Only {_listed(ran)} ran; the results of the other stages are those of earlier runs.")
        if self.outdated:
            found.append(f"The results of {_listed(self.outdated)} belong to other code, parameters or data than this run.")
        if self.recorded is False:
            found.append("dvc.lock does not name the results.")
        return found


def coverage_of(ran: Collection[str], stages: Mapping[str, str], default: Collection[str]) -> Coverage:
    """Return which stages a run covers.

    Args:
        ran: Names of the nodes of the run.
        stages: Stage of every node, in the order of the pipeline.
        default: Names of the nodes of the default pipeline.
    """
    nodes: dict[str, set[str]] = {}
    for node, stage in stages.items():
        nodes.setdefault(stage, set()).add(node)
    whole = tuple(stage for stage, own in nodes.items() if own <= set(ran))
    part = tuple(stage for stage, own in nodes.items() if own & set(ran) and stage not in whole)
    absent = tuple(stage for stage, own in nodes.items() if own & set(default) and not own & set(ran))
    return Coverage(whole, part, absent)


def _listed(items: Collection[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
