"""Change results of a finished run, one file at a time: none may pass in silence.

    python tests/torture/tampering.py --seed=0 --count=40

For each change, (1) the folders whose `digests.json` covers the file are checked as readers check them, which must be an
error, and (2) the stage that makes the file runs again, which must make it again or end with an error that names it, and not
a second time. The last line has the counts; the exit status is 1 if a change was silent, or left the stage stuck.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from checkout import clone, start_run

from fourfold.data.shards import ShardSet
from fourfold.digests import DIGESTS_FILE, check_digests, recorded_digests

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds of one command
KINDS = ("flip", "truncate", "delete", "swap", "value")
STAGES = {  # by the beginning of the path below data/
    "01_raw": "ingestion",
    "02_labels": "pseudo_labeling",
    "03_tokens": "tokenizer_training",
    "04_models/finetuning": "finetuning",
    "04_models": "pretraining",
    "05_reports": "evaluation",
}


@dataclass(frozen=True)
class Tampering:
    """One change of one file (swap: of two), named by their paths below data/."""

    kind: str
    name: str
    other: str = ""

    def __str__(self) -> str:
        """Describe the change in a few words."""
        return f"{self.kind} {self.name}" + (f" and {self.other}" if self.other else "")


class Finished:
    """A project with a finished run, and a copy of it in which files are changed."""

    def __init__(self, project: Path, work: Path, environment: str) -> None:
        """Copy the project to `work`."""
        self.project, self.work, self.environment = project, work, environment
        shutil.copytree(project, work, symlinks=True)
        self.wanted = products(project / "data")

    def restore(self) -> None:
        """Undo all that happened in the copy."""
        shutil.rmtree(self.work / "data")
        shutil.copytree(self.project / "data", self.work / "data", symlinks=True)

    def run(self, stage: str) -> tuple[int, str]:
        """Run a stage in the copy; return exit status and output."""
        return kedro(self.work, self.environment, f"--pipelines={stage}")

    def is_refused(self, name: str) -> bool:
        """Return whether a reader of the folders that record a file refuses them; True if none records it."""
        original, copy = self.project / "data", self.work / "data"
        covering = [folder for folder in Path(name).parents if (original / folder / DIGESTS_FILE).is_file()]
        return not covering or any(not _opens(original / folder, copy / folder) for folder in covering)

    def remaining(self) -> list[str]:
        """Return the products of the copy that differ from the original."""
        found = products(self.work / "data")
        return sorted(name for name in self.wanted.keys() | found.keys() if self.wanted.get(name) != found.get(name))


def products(data: Path) -> dict[str, str]:
    """Return the SHA-256 of every result by its path below data/."""
    files = [path for path in data.glob("0[1-5]_*/**/*") if path.is_file() and ".superseded" not in path.parts]
    return {path.relative_to(data).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def kedro(folder: Path, environment: str, *options: str) -> tuple[int, str]:
    """Run `kedro run` in a project; return exit status and output."""
    command = start_run(folder, f"--env={environment}", *options)
    return command.wait(LIMIT), command.text()


def finished_project(target: Path, environment: str) -> Path:
    """Copy the files that git tracks into a new repository, and run all stages there."""
    code, text = kedro(clone(target), environment)
    if code:
        raise RuntimeError(f"the undisturbed run ended with {code}: {text[-3000:]}")
    return target


def choose(names: list[str], rng: random.Random) -> Tampering:
    """Choose a change; every folder and kind of file has the same chance, however many files it has."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        parts = Path(name).parts
        groups.setdefault(("/".join(parts[:2]), parts[-1] if name.endswith(".json") else Path(name).suffix), []).append(name)
    for _ in range(1000):
        group, kind = rng.choice(sorted(groups.values())), rng.choice(KINDS)
        name = rng.choice(group)
        if kind == "value" and not name.endswith(".json"):
            continue
        if kind != "swap":
            return Tampering(kind, name)
        if others := [other for other in group if other != name]:
            return Tampering(kind, name, rng.choice(others))
    raise ValueError("There is no file to change.")


def apply(tampering: Tampering, data: Path, rng: random.Random) -> bool:
    """Change the files; return False if that changes nothing."""
    path = data / tampering.name
    before = path.read_bytes()
    if tampering.kind == "swap":
        other = data / tampering.other
        content = other.read_bytes()
        other.write_bytes(before)
        path.write_bytes(content)
        return content != before
    if tampering.kind == "delete":
        path.unlink()
        return True
    if tampering.kind == "value":
        values = json.loads(before)
        changed = _with_another_value(values, rng)
        path.write_text(json.dumps(changed, indent=1, sort_keys=True) + "\n")
        return bool(changed != values)
    if not before:
        return False
    content = bytearray(before[: rng.randrange(len(before))] if tampering.kind == "truncate" else before)
    if tampering.kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return True


def judge(finished: Finished, tampering: Tampering) -> tuple[str, str]:
    """Return what the change led to, "healed", "refused", "silent" or "stuck", and why it counts as one of the last two."""
    names = [tampering.name] + ([tampering.other] if tampering.other else [])
    if Path(tampering.name).name != "fingerprint.json" and not any(map(finished.is_refused, names)):
        return "silent", "readers accept it"
    stage = next(stage for start, stage in STAGES.items() if tampering.name.startswith(start))
    outcome, (code, text) = "healed", finished.run(stage)
    if code:
        is_named = any(Path(name).name in text or str(Path(name).parent) in text for name in names)
        if not is_named or "Traceback" in text:
            return "silent", f"{stage} ended with {code}: {text[-500:]}"
        # The stage makes the file itself, so it may refuse what it finds once, not in every run.
        outcome, (code, text) = "refused", finished.run(stage)
        if code:
            return "stuck", f"{stage} ended again with {code}: {text[-500:]}"
    if remaining := finished.remaining():
        return "silent", f"{stage} ended with 0 and left {', '.join(remaining[:3])}"
    return outcome, ""


def tamper(finished: Finished, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Apply changes one at a time; return the counts of outcomes, and the silent and stuck ones."""
    counts, faults = Counter[str](), []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        tampering = choose(sorted(finished.wanted), rng)
        while not apply(tampering, finished.work / "data", rng):
            tampering = choose(sorted(finished.wanted), rng)
        outcome, reason = judge(finished, tampering)
        counts[outcome] += 1
        print(f"{number + 1:3d} {outcome:<8} {tampering} {reason}", flush=True)
        if outcome in ("silent", "stuck"):
            faults.append(f"{tampering}: {reason}")
        finished.restore()
    return counts, faults


def _opens(original: Path, folder: Path) -> bool:
    """Return whether a folder opens as its readers open it."""
    try:
        if any(original.glob("*/*/manifest.json")):
            ShardSet(folder).verify()
        check_digests(folder, "", *recorded_digests(original))
    except ValueError:
        return False
    return True


def _with_another_value(values: Any, rng: random.Random) -> Any:
    """Return JSON values with one leaf changed."""
    if isinstance(values, dict) and values:
        key = rng.choice(sorted(values))
        return {**values, key: _with_another_value(values[key], rng)}
    if isinstance(values, list) and values:
        index = rng.randrange(len(values))
        return [*values[:index], _with_another_value(values[index], rng), *values[index + 1 :]]
    if isinstance(values, bool) or values is None:
        return not values
    return values + 1 if isinstance(values, int | float) else f"{values}x" if isinstance(values, str) else 0


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides all changes")
    parser.add_argument("--count", type=int, default=40, help="number of changes")
    parser.add_argument("--project", type=Path, help="a project with a finished run; it is not changed (default: a new one)")
    parser.add_argument("--env", default="smoke", help="the environment of that run (kedro run --env)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tampering-") as folder:
        project = options.project or finished_project(Path(folder) / "finished", options.env)
        counts, faults = tamper(Finished(project.resolve(), Path(folder) / "work", options.env), options.seed, options.count)
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("healed", "refused", "silent", "stuck"))
    print(f"{options.count} changes of results: {outcomes}; seed {options.seed}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
