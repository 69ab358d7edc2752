"""Promotion of a version to champion, and rollback to the champion before."""

import getpass
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.registry.evidence import Evidence
from fourfold_ops.registry.gate import Finding, Gate, judge
from fourfold_ops.registry.history import MAX_REASON, Entry, History, OvertakenError
from fourfold_ops.registry.requirements import Origin, check_requirements, git_output
from fourfold_ops.registry.versions import CHAMPION, DIGEST_TAG, FORCED_TAG, PREVIOUS, ModelVersions, Version

logger = logging.getLogger(__name__)
TAG = "promotion"  # prefix of the tags of a version
MOVE_SECONDS = 60  # after which a move that is in the history, but not in the aliases, is not under way any more
POLLS, POLL_SECONDS = 10, 0.5


@dataclass(frozen=True)
class Request:
    """Who promotes, where, and whether against the gate."""

    project: Path
    gate: Gate
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # data set → suites of expectations
    force: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Decision:
    """The result of the gate for one version."""

    version: Version
    champion: Version | None
    findings: list[Finding]
    seen: int  # entries of the history when it was made

    @property
    def passed(self) -> bool:
        """Whether every condition is met."""
        return all(finding.passed for finding in self.findings)


def decide(
    models: ModelVersions, history: History, wanted: str, request: Request, source: ModelVersions | None = None
) -> Decision:
    """Return what the gate says about a version.

    Args:
        models: whose champion is compared with.
        history: of the same model.
        wanted: number or alias of the version.
        request: the gate and the project.
        source: the registry that has the version; default: that of the champion.

    Raises:
        UserError: There is no such version, or it is the champion.
    """
    seen = _settled(models, history)
    source = source or models
    version = source.get(wanted)
    champion = models.get(CHAMPION) if CHAMPION in models.aliases else None
    if champion is not None and _is_same(champion, version, source is models):
        raise UserError(f"Version {version.number} of {models.name!r} is the champion.", "Choose another version.")
    ours = source.evidence(version)
    origin = Origin(request.project, source.client, version, ours, request.suites)
    findings = check_requirements(request.gate.require, origin) + _judged(models, request.gate, ours, champion)
    return Decision(version, champion, findings, seen)


def _settled(models: ModelVersions, history: History) -> int:
    """Return the number of entries of the history, once the alias is where the last one says.

    The history is read before the aliases: a promotion in between is noticed when this one is recorded. A champion that was
    moved by other means, or by a command that was killed, is a warning.

    Raises:
        OvertakenError: Another command is moving the champion and does not end within seconds.
    """
    for remaining in range(POLLS, -1, -1):
        entries = history.entries()
        models.refresh()
        champion = models.aliases.get(CHAMPION, "")
        if not entries or entries[-1].to_version == champion:
            break
        if _age(entries[-1]) > MOVE_SECONDS:
            logger.warning("The champion is version %s, but the history ends with: %s.", champion or "none", entries[-1].text)
            break
        if not remaining:
            raise OvertakenError(
                f"Another command moves the champion of {models.name!r}: {entries[-1].text}. Nothing was changed.",
                "Check `kedro models list`, then run the command again.",
            )
        time.sleep(POLL_SECONDS)
    return len(entries)


def _age(entry: Entry) -> float:
    return abs((datetime.now(UTC) - datetime.fromisoformat(entry.at)).total_seconds())


def _is_same(champion: Version, version: Version, is_same_registry: bool) -> bool:
    if is_same_registry:
        return champion.number == version.number
    digests = [one.tags.get(DIGEST_TAG) for one in (champion, version)]
    return bool(digests[0]) and digests[0] == digests[1]


def _judged(models: ModelVersions, gate: Gate, ours: Evidence | None, champion: Version | None) -> list[Finding]:
    theirs = models.evidence(champion) if champion else None
    if ours is None or (champion and theirs is None):
        lacking = "the version" if ours is None else f"the champion, {champion.title if champion else ''},"
        return [Finding("metrics", "replicates of both models", f"{lacking} has none", False)]
    return judge(gate, ours, theirs)


def promote(models: ModelVersions, history: History, decision: Decision, request: Request, number: str = "") -> Entry:
    """Make a version champion, and the old champion `previous`; the move is in the history first.

    Args:
        models, history: of the registry with the champion.
        decision: what the gate says.
        request: the gate, and whether it may be overruled.
        number: of the version in this registry, if it was copied from another one.

    Raises:
        OvertakenError: Another command moved the champion since the decision was made; nothing was changed.
    """
    assert decision.passed or request.force
    version, champion = decision.version, decision.champion
    entry = Entry(
        action="promote",
        from_version=champion.number if champion else "",
        to_version=number or version.number,
        gate=request.gate.digest(),
        evidence=version.run_id,
        forced=not decision.passed,
        reason=request.reason[:MAX_REASON],
        **_now(request.project),
    )
    judged = {"gate_settings": request.gate.model_dump(mode="json"), "findings": [asdict(f) for f in decision.findings]}
    history.append(decision.seen, entry, judged)
    _move(models, entry)
    return entry


def rollback(models: ModelVersions, history: History, project: Path, reason: str) -> Entry:
    """Make `previous` champion again, and the champion `previous`.

    Raises:
        UserError: There is no champion or no `previous`.
        OvertakenError: Another command moved the champion meanwhile; nothing was changed.
    """
    seen = _settled(models, history)
    if missing := [alias for alias in (CHAMPION, PREVIOUS) if alias not in models.aliases]:
        raise UserError(
            f"Model {models.name!r} has no alias {missing[0]!r}, so there is nothing to roll back.",
            "See `kedro models list`; `kedro models promote VERSION` chooses any version.",
        )
    champion, previous = models.aliases[CHAMPION], models.aliases[PREVIOUS]
    entry = Entry(
        action="rollback",
        from_version=champion,
        to_version=previous,
        gate="",
        evidence="",
        forced=False,
        reason=reason[:MAX_REASON],
        **_now(project),
    )
    history.append(seen, entry, {})
    _move(models, entry)
    return entry


def _move(models: ModelVersions, entry: Entry) -> None:
    """Set the aliases, the champion last, and describe the move in tags of the new champion."""
    client, number = models.client, entry.to_version
    tags = {"at": entry.at, "by": entry.by, "from": entry.from_version or "none", "gate_sha256": entry.gate or "none"}
    for name, value in tags.items():
        client.set_model_version_tag(models.name, number, f"{TAG}.{name}", value)
    if entry.forced:
        client.set_model_version_tag(models.name, number, FORCED_TAG, entry.reason)
    elif entry.action == "promote" and FORCED_TAG in client.get_model_version(models.name, number).tags:
        client.delete_model_version_tag(models.name, number, FORCED_TAG)
    if entry.from_version:
        client.set_registered_model_alias(models.name, PREVIOUS, entry.from_version)
    client.set_registered_model_alias(models.name, CHAMPION, number)


def _now(project: Path) -> dict[str, Any]:
    """Return time, user and commit of this moment."""
    name, address = (git_output(project, "config", f"user.{part}").decode().strip() for part in ("name", "email"))
    user = f"{name} <{address}>" if address else name or getpass.getuser()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": user,
        "commit": git_output(project, "rev-parse", "HEAD").decode().strip(),
    }
