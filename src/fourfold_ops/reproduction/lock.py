"""The content of a `dvc.lock`: what each stage read and wrote, by MD5."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from fourfold_ops.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A file or folder that a stage read or wrote."""

    path: str  # relative to the project, or absolute, or a URL
    md5: str  # of a folder: that of its listing, with the ending `.dir`


@dataclass(frozen=True)
class StageRecord:
    """One stage of the lock."""

    name: str
    deps: tuple[Entry, ...] = ()
    outs: tuple[Entry, ...] = ()
    params: dict[str, dict[str, Any]] = field(default_factory=dict)  # by file, then by dotted name
    cmd: str = ""

    @property
    def options(self) -> tuple[str, ...] | None:
        """The options of `kedro run` that select the configuration; None if the command is another one."""
        words = shlex.split(self.cmd)
        if "kedro" not in words or words[words.index("kedro") + 1 :][:1] != ["run"]:
            return None
        options = words[words.index("kedro") + 2 :]
        return tuple(word for word in options if not word.startswith(("--pipelines=", "$")))


@dataclass(frozen=True)
class Lock:
    """All stages of a lock, in its order."""

    stages: dict[str, StageRecord]

    @classmethod
    def parse(cls, content: bytes, where: str) -> "Lock":
        """Return the lock.

        Raises:
            UserError: `content` is no lock of DVC 3 or its entries have no MD5; the message names `where`.
        """
        try:
            stages = yaml.safe_load(content)["stages"]
            return cls({name: _stage(name, values) for name, values in stages.items()})
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{where} is not a lock file of DVC: {' '.join(str(error).split())}.",
                "Restore it from git.",
            ) from error

    def producer(self, path: str) -> tuple[str, Entry] | None:
        """Return the stage whose output is `path` or contains it, and that output; None for what no stage writes."""
        for stage in self.stages.values():
            for out in stage.outs:
                if path == out.path or path.startswith(f"{out.path}/"):
                    return stage.name, out
        return None

    def inputs(self, stages: Iterable[str]) -> dict[str, tuple[Entry, list[str]]]:
        """Return what no stage writes and these stages read (code and data from outside), by path, with its readers."""
        found: dict[str, tuple[Entry, list[str]]] = {}
        for name in stages:
            for dep in self.stages[name].deps:
                if self.producer(dep.path) is None:
                    found.setdefault(dep.path, (dep, []))[1].append(name)
        return found

    def needed_outputs(self, stages: Iterable[str]) -> dict[str, Entry]:
        """Return the outputs of other stages that these stages read, by path."""
        wanted = set(stages)
        producers = [self.producer(dep.path) for name in wanted for dep in self.stages[name].deps]
        return {out.path: out for stage, out in filter(None, producers) if stage not in wanted}

    def contradictions(self, stages: Iterable[str]) -> list[str]:
        """Return a sentence for each input of these stages whose MD5 is not that of the output which it is."""
        found = []
        for stage in (self.stages[name] for name in stages):
            for dep in stage.deps:
                made = self.producer(dep.path)
                if made is not None and made[1].path == dep.path and made[1].md5 != dep.md5:
                    found.append(
                        f"dvc.lock contradicts itself: {stage.name} read {dep.path} with MD5 {dep.md5}, but {made[0]} wrote "
                        f"{made[1].md5}. The lock was edited, or {stage.name} did not run after {made[0]}."
                    )
        return found


def _stage(name: str, values: dict[str, Any]) -> StageRecord:
    deps, outs = (tuple(Entry(str(e["path"]), str(e["md5"])) for e in values.get(key) or ()) for key in ("deps", "outs"))
    return StageRecord(name, deps, outs, values.get("params") or {}, str(values.get("cmd") or ""))
