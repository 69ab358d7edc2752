"""Decides what a run does: which stages run and why, which folders of results are made again, and what it costs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fourfold_ops.planning import contents
from fourfold_ops.planning.changes import Change, code_changes, counts_for, parameter_changes
from fourfold_ops.planning.layout import Stage, read_stages
from fourfold_ops.planning.project import Claim, PlannedProject
from fourfold_ops.planning.records import Record, read_records, record_of_lock, sections_of

DATA = "data"  # the folder of all results
WORK = ("make", "maybe", "repair")  # what happens to a folder in which a stage works


@dataclass(frozen=True)
class FolderPlan:
    """What happens to a claimed folder.

    Attributes:
        path: The folder, relative to the project.
        action: "make" (its content is superseded), "maybe" (it is, unless its inputs come out as they were), "restore" (what
            was kept aside returns), "repair" (damaged files are made again, with equal bytes) or "keep".
        aside: Where its content goes, or whence the result returns.
    """

    path: str
    action: str
    aside: str = ""


@dataclass(frozen=True)
class StagePlan:
    """What a run does with one stage.

    Attributes:
        name: The stage.
        changes: Why it runs; empty if its results are used again.
        folders: Its claimed folders.
        outputs: Paths that it writes.
        seconds: What making its results took last time; 0 if unknown.
        peak_bytes: The memory that it took; 0 if unknown.
        size: Bytes of its present results.
    """

    name: str
    changes: tuple[Change, ...]
    folders: tuple[FolderPlan, ...] = ()
    outputs: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    size: int = 0

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return bool(self.changes)

    @property
    def makes_again(self) -> bool:
        """Whether it works, and does not only find its work done: a claimed folder is made, or it has none."""
        return self.runs and (not self.folders or any(folder.action in WORK for folder in self.folders))


@dataclass(frozen=True)
class Present:
    """The project as it is now: what a plan is computed from."""

    project_path: Path
    project: PlannedProject
    parameters: Mapping[str, Any]
    catalog: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Forecast:
    """What the stages planned so far do to the data.

    Attributes:
        plans: Their plans by name.
        made: Paths with other content after the run.
        digests: Digests that outputs have after the run, where a result returns that was kept aside; see `contents.digest`.
    """

    plans: dict[str, StagePlan] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)


def plan_stages(present: Present, selected: Collection[str] = ()) -> list[StagePlan]:
    """Return the plan of every selected stage, by default of all, in order.

    A stage runs if an output is missing or damaged, if a parameter, a module, an input or a file from outside is another one
    than when it was made, or if a stage that it reads from runs.
    """
    records, forecast = read_records(present.project_path / DATA), Forecast()
    for stage in read_stages(present.project_path):
        if selected and stage.name not in selected:
            continue
        found = records.get(stage.name) or [one for one in [record_of_lock(present.project_path, stage)] if one]
        forecast.plans[stage.name] = _plan_stage(present, stage, found, forecast)
    return list(forecast.plans.values())


def has_new_parameters(present: Present, selected: Collection[str]) -> bool:
    """Return whether a stage was never made with the present parameters; quicker to find out than the whole plan."""
    records = read_records(present.project_path / DATA)
    stages = [stage for stage in read_stages(present.project_path) if stage.name in selected]
    return any(
        not any(not parameter_changes(one.parameters, _wanted(present, stage)) for one in records.get(stage.name, ()))
        for stage in stages
    )


def _plan_stage(present: Present, stage: Stage, records: list[Record], forecast: Forecast) -> StagePlan:
    """Plan one stage, and add what it does to the forecast."""
    root = present.project_path
    found = [present.project.claims(root / out) for out in stage.outputs]
    claims = {path: claim for one in found for path, claim in one.items()}
    held = {out: contents.digest(root / out) for out in stage.outputs}
    # of several results that runs have made, DVC or a run may have restored an older one
    record = next((one for one in records if one.outputs == held), records[0] if records else None)
    changes = _own_changes(present, stage, record, claims)
    before = [plan for plan in forecast.plans.values() if plan.runs and {*plan.outputs} & {*stage.inputs}]
    changes += [Change("stage", plan.name) for plan in before]
    others = [one for one in records if one is not record]
    older = next((one for one in others if _is_of_now(present, stage, one, forecast)), None) if changes else None
    if not changes:
        folders: tuple[FolderPlan, ...] = ()
    elif older is not None:
        folders = tuple(_returning(root, name, digest, claims) for name, digest in sorted(older.claims.items()))
        forecast.digests.update(older.outputs)
    else:
        folders = _folders(present, stage, claims, changes, forecast)
    if any(folder.action in ("make", "maybe") for folder in folders):
        names = [folder.path for folder in folders]
        forecast.made.update(out for out in stage.outputs if not any(_overlap(out, name) for name in names))
    taken = older or record or Record({})
    bytes_now = sum(contents.size(path) for out in stage.outputs if (path := root / out).exists())
    return StagePlan(stage.name, tuple(changes), folders, stage.outputs, taken.seconds, taken.peak_bytes, bytes_now)


def _is_of_now(present: Present, stage: Stage, record: Record, forecast: Forecast) -> bool:
    """Return whether a stage was once made from what it would be made from now."""
    if not record.claims or parameter_changes(record.parameters, _wanted(present, stage)):
        return False
    if code_changes(record.code, present.project.code(record.code)) or _outside_changes(present, stage, record):
        return False
    root = present.project_path
    return all(
        digest == (forecast.digests.get(path) or contents.digest(root / path))
        and not any(_overlap(path, made) for made in forecast.made)
        for path, digest in record.inputs.items()
    )


def _returning(root: Path, name: str, digest: str, claims: Mapping[Path, Claim]) -> FolderPlan:
    """Return what happens to a folder for which a result was made before: it is there, it was kept aside, or it is gone."""
    path = root / name
    aside = path.parent / contents.KEPT_ASIDE
    if path in claims and claims[path].digest == digest:
        return FolderPlan(name, "keep")
    if (place := aside / f"{path.name}-{digest[:8]}").is_dir():
        return FolderPlan(name, "restore", _name(place, root))
    held = claims[path].digest if path in claims else ""
    return FolderPlan(name, "make", _name(aside / f"{path.name}-{held[:8]}", root) if held else "")


def _wanted(present: Present, stage: Stage) -> dict[str, Any]:
    return sections_of(present.parameters, stage)


def _own_changes(present: Present, stage: Stage, record: Record | None, claims: Mapping[Path, Claim]) -> list[Change]:
    """Return what changed in the stage itself: its outputs, parameters, code, inputs and files from outside."""
    root = present.project_path
    changes = [Change("missing", out) for out in stage.outputs if not contents.digest(root / out)]
    if record is None:
        return changes or [Change("unknown", stage.name)]
    # 1) Parameters and code
    changes += parameter_changes(record.parameters, _wanted(present, stage))
    known = record.code or {name: digest for claim in claims.values() for name, digest in claim.modules.items()}
    changes += code_changes(known, present.project.code(known))
    changes += [Change("package", path) for path, md5 in record.files.items() if contents.md5_of_dvc(root / path) != md5]
    # 2) Inputs that were made again since, and files from outside
    for path, before in record.inputs.items():
        if (root / path).exists() and (now := contents.digest(root / path)) != before:
            changes.append(Change("input", path, before, now))
    changes += _outside_changes(present, stage, record)
    # 3) Results that were damaged (of the files that were touched since, those that differ from their digest) or replaced
    if record.ended_ns:
        touched = [file for out in stage.outputs for file in contents.changed_since(root / out, record.ended_ns)]
        damages = {file: damage for file in touched if (damage := present.project.damage(file))}
        changes += [Change("damage", _name(file, root), new=damage) for file, damage in damages.items()]
    if not any(change.kind in ("missing", "damage") for change in changes):
        others = [out for out, digest in record.outputs.items() if contents.digest(root / out) != digest]
        changes += [Change("replaced", out) for out in others]
    return changes


def _outside_changes(present: Present, stage: Stage, record: Record) -> list[Change]:
    places = present.project.outside(present.parameters)
    changed = []
    for name in stage.outside:
        place = places.get(name)
        if place and "://" not in place and name in record.outside:
            now = contents.outside_digest(present.project_path / place)
            if now != record.outside[name]:
                changed.append(Change("outside", place, record.outside[name], now))
    return changed


def _folders(
    present: Present, stage: Stage, claims: Mapping[Path, Claim], changes: list[Change], forecast: Forecast
) -> tuple[FolderPlan, ...]:
    """Return what happens to each claimed folder of a stage that runs.

    Folders of one stage depend on each other, so the rule is applied until nothing changes. A folder whose input has a name
    that the catalog does not know counts as made again if anything before it is.
    """
    root, paths = present.project_path, _paths_by_name(present.catalog)
    other = {*forecast.made, *(change.name for change in changes if change.kind == "input")}
    own = {path for path, claim in claims.items() if _is_affected(claim, changes, present)}
    remade = set(own)
    while True:
        before = len(remade)
        changed = {*other, *(_name(path, root) for path in remade)}
        # what an input without a place in the catalog may come from: the stages before, and this one
        anything = any(_overlap(one, place) for one in changed for place in (*stage.inputs, *stage.outputs))
        for path, claim in claims.items():
            places = [paths.get(name, "") for name in claim.inputs]
            known = [place for place in places if place and not _overlap(place, _name(path, root))]
            is_input_changed = any(_overlap(place, one) for place in known for one in changed)
            if is_input_changed or (anything and len(known) < len(places)):
                remade.add(path)
        if len(remade) == before:
            break
    forecast.made.update(_name(path, root) for path in remade)
    actions = {path: "make" if path in own else "maybe" for path in remade}
    damaged = [change.name for change in changes if change.kind == "damage"]
    for path in claims.keys() - remade:
        actions[path] = "repair" if any(_overlap(_name(path, root), file) for file in damaged) else "keep"
    return tuple(_folder_plan(root, path, claim, actions[path]) for path, claim in sorted(claims.items()))


def _is_affected(claim: Claim, changes: list[Change], present: Present) -> bool:
    """Return whether the code or the settings of a claimed folder, or the files that it reads from outside, changed."""
    if code_changes(claim.modules, present.project.code(claim.modules)):
        return True
    kinds = {change.kind for change in changes}
    is_outside = "outside" in kinds and bool(claim.inputs)
    return is_outside or any(change.kind == "parameter" and counts_for(change.name, claim.parameters) for change in changes)


def _folder_plan(root: Path, path: Path, claim: Claim, action: str) -> FolderPlan:
    if action not in ("make", "maybe") or not claim.is_kept:
        return FolderPlan(_name(path, root), action)
    aside = path.parent / contents.KEPT_ASIDE / f"{path.name}-{claim.digest[:8]}"
    return FolderPlan(_name(path, root), action, _name(aside, root))


def _paths_by_name(catalog: Mapping[str, Any]) -> dict[str, str]:
    entries = {name: entry for name, entry in catalog.items() if isinstance(entry, Mapping)}
    return {name: str(place) for name, entry in entries.items() if (place := entry.get("path") or entry.get("filepath"))}


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _overlap(left: str, right: str) -> bool:
    return left == right or left.startswith(f"{right}/") or right.startswith(f"{left}/")
