"""Signals at random moments, then the same command until it ends with 0: its results equal those of an undisturbed run."""

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from part import Part
from preloaded import Command
from project import LIMIT, Calm, Project, difference

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
# What docs/exit-codes.md promises; 143 and the signal itself: before the command has started.
CODES = {"SIGKILL": {-9}, "SIGTERM": {75, 143, -15}, "SIGINT": {130, -2}}
# Where `Project.stage` says that a run is: while it creates the store of runs, then in each stage.
MOMENTS = ("store", "ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")
MAX_ATTEMPTS = 12  # for one project; the last ones are not disturbed
END_SECONDS = 60  # within which a signal must end the run
# Moments that a random time seldom meets, as a pattern in the log, and seconds within which the signal then follows.
AIMS = {"recording": (re.compile(r"Completed (\d+) out of \1 tasks"), 6.0), "validation": (re.compile("Ingestion kept"), 1.0)}


@dataclass
class Kills:
    """Counts of one signal."""

    name: str
    sent: Counter[str] = field(default_factory=Counter)  # by stage
    projects: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)

    def part(self) -> Part:
        """Return the counts as one line."""
        total = sum(self.sent.values())
        problems = self.problems if total else ["no signal was sent: every run ended before its moment"]
        where = ", ".join(f"{stage} {count}" for stage, count in sorted(self.sent.items()))
        text = f"{total} sent ({where}); {self.equal} of {self.projects} projects resumed to equal bytes"
        return Part(self.name, text, tuple(problems))


def send(name: str, calm: Calm, folder: Path, options: Any) -> Part:
    """Disturb one project after the other, until the time is over or enough signals are sent."""
    kills, deadline = Kills(name), time.monotonic() + 60 * options.minutes
    while (not kills.sent and kills.projects < MAX_ATTEMPTS) or (
        time.monotonic() < deadline and kills.sent.total() < options.kills
    ):
        place = folder / f"{name} {kills.projects}"
        rng = random.Random(f"{options.seed} {name} {kills.projects}")
        disturb(calm, place, kills, rng, min(options.signals, MAX_ATTEMPTS - 2))
    return kills.part()


def disturb(calm: Calm, folder: Path, kills: Kills, rng: random.Random, signals: int) -> None:
    """Run one new project to its end, with the signal at random moments, and compare its results.

    Args:
        calm: the undisturbed run.
        folder: where to put the project; it is removed at the end, unless something was wrong.
        kills: receives the counts.
        rng: decides the moments.
        signals: how many are sent at most.
    """
    project, problems = Project.copy_of(calm.template, folder), []
    aims = ["", "store", "recording", "validation"]
    for attempt in range(MAX_ATTEMPTS):
        command = project.start()
        aim = aims[(kills.projects + attempt) % len(aims)]
        if attempt < signals and _moment_comes(command, project, aim, calm.seconds, rng):
            problems += _send(command, project, kills, rng)
            continue
        code = command.wait(LIMIT)
        if code == 0:
            break
        problems.append(f"the run after the signals ended with {code}: {command.text()[-600:]}")
    if not problems:
        problems += [f"{name} differs" for name in difference(calm.products, project.products())] + project.faults()
    kills.projects += 1
    kills.equal += not problems
    kills.problems += [f"{folder.name}: {problem}" for problem in problems]
    if not problems:
        project.remove()


def kill_in_each_stage(calm: Calm, folder: Path, seed: int) -> Part:
    """Send SIGKILL to the runs of one project at each of the moments, then run it to its end and compare its results."""
    project, kills = Project.copy_of(calm.template, folder), Kills("SIGKILL", projects=1)
    rng = random.Random(f"{seed} stages")
    for moment in MOMENTS:
        command = project.start()
        if _until(command, partial(_is_in, moment, command, project)):
            time.sleep(rng.uniform(0.1, 0.6))
            kills.problems += _send(command, project, kills, rng)
    if missed := [moment for moment in MOMENTS if not kills.sent[moment]]:
        kills.problems.append(f"no signal was sent in {', '.join(missed)}")
    outcome = project.run()
    if outcome.code:
        kills.problems.append(f"the run after the signals ended with {outcome.code}: {outcome.text[-600:]}")
    else:
        kills.problems += [f"{name} differs" for name in difference(calm.products, project.products())] + project.faults()
    kills.equal = int(not kills.problems)
    if not kills.problems:
        project.remove()
    return replace(kills.part(), name="SIGKILL in each stage")


def _is_in(moment: str, command: Command, project: Project) -> bool:
    return project.stage(command.text()) == moment


def _moment_comes(command: Command, project: Project, aim: str, seconds: float, rng: random.Random) -> bool:
    """Wait for a random moment; return False if the run ends before."""
    if aim in AIMS:
        pattern, width = AIMS[aim]
        if not _until(command, lambda: pattern.search(command.text()) is not None):
            return False
        delay = rng.uniform(0, width)
    elif aim == "store" and not (project.folder / "data/mlflow.db").exists():
        if not _until(command, lambda: any((project.folder / "data").glob(".partial-*mlflow.db*"))):
            return False
        delay = rng.uniform(0, 2)
    else:
        delay = rng.uniform(0, 0.9 * seconds)
    deadline = time.monotonic() + delay
    return _until(command, lambda: time.monotonic() > deadline)


def _until(command: Command, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds; return False if the command ends before."""
    while not condition():
        if command.poll() is not None:
            return False
        time.sleep(0.02)
    return True


def _send(command: Command, project: Project, kills: Kills, rng: random.Random) -> list[str]:
    """Send the signal, wait for the end, and return what is wrong with it."""
    # Ctrl-C reaches the whole group; `kill` the process; the OOM killer one process, and a batch system all of them.
    whole_group = kills.name == "SIGINT" or (kills.name == "SIGKILL" and rng.random() < 0.5)
    kills.sent[project.stage(command.text())] += 1
    send = os.killpg if whole_group else os.kill
    send(command.pid, SIGNALS[kills.name])
    try:
        code = command.wait(END_SECONDS)
    except TimeoutError:
        return [f"the run did not end within {END_SECONDS} s of the signal"]
    text = command.text()
    if code not in CODES[kills.name] | {0}:
        return [f"exit code {code} after the signal: {text[-600:]}"]
    return [f"a traceback after the signal: {text[-1500:]}"] if "Traceback" in text else []
