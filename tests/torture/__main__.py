"""Disturb runs of all stages in every way that this machine allows: `make torture`.

Each part prints one line with its counts. The exit status is 1 if a part failed; projects that went wrong stay in the
folder that the last line names. docs/reliability.md has the results.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disk import fill, size_of
from kills import SIGNALS, kill_in_each_stage, send
from machine import SEPARATE, TOGETHER, check, two_at_once
from part import Part
from project import Calm, Project, seconds_of
from tiny import ENVIRONMENT, tiny_clone

ROOT = Path(__file__).parents[2]
PARTS = ("stages", "kills", "two", "machine", "disk", "scripts")
# Programs of this folder with the options --seed and --count: the count in CI, the full one, and whether they take a project
# with a finished run. They print one line with their counts and end with 0 if all went well. A count of 0: not at all.
SCRIPTS = {"tampering": (1, 40, True), "hostile_inputs": (60, 500, False), "memory": (0, 20_000, False)}
SCRIPT_SECONDS = 7200


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="decides all moments and sizes")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each signal; one project gets it in any case")
    parser.add_argument("--kills", type=int, default=30, help="stop after this number of each signal, if time is left")
    parser.add_argument("--signals", type=int, help="for one project (default: 2, 10 with --full)")
    parser.add_argument("--disk", type=int, default=1, help="number of sizes of the full disk")
    parser.add_argument("--full", action="store_true", help="60 minutes for each signal, 10 sizes, each limit, all counts")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="projects at once; each has one thread")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    if unknown := set(options.parts.split(",")) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if options.signals is None:
        options.signals = 10 if options.full else 2
    if options.full:
        options.minutes, options.disk = max(options.minutes, 60.0), max(options.disk, 10)
    return options


def main() -> int:
    """Run the parts and return the exit status."""
    options = arguments()
    _own_mounts()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    folder.chmod(0o755)  # one part runs as another user
    calm = undisturbed(folder)
    first = Part("undisturbed run", f"{len(calm.products)} results in {calm.seconds:.0f} s; seed {options.seed}")
    first.show()
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(job): name for name, job in jobs(options, folder, calm)}
        parts = [first]
        for done in as_completed(running):
            try:
                part = done.result()
            except Exception as error:  # the other parts still report
                part = Part(running[done], "ended with an exception", ("".join(traceback.format_exception(error))[-3000:],))
            parts.append(part)
            part.show()
    if failed := any(part.problems for part in parts):
        print(f"What went wrong is kept in {folder}.")
    else:
        shutil.rmtree(folder)
    return int(failed)


def undisturbed(folder: Path) -> Calm:
    """Clone the repository and run it once to the end."""
    template = tiny_clone(folder / "template")
    project = Project.copy_of(template, folder / "undisturbed")
    seconds = seconds_of(project)
    if faults := project.faults():
        raise RuntimeError(f"the undisturbed run left faults: {'; '.join(faults)}")
    return Calm(template, project.folder, project.products(), seconds, size_of(project.folder) - size_of(template))


def jobs(options: argparse.Namespace, folder: Path, calm: Calm) -> Iterator[tuple[str, Callable[[], Part]]]:
    """Yield the parts by name, each as a function that returns its result; the longest first."""
    parts = options.parts.split(",")
    if "stages" in parts:
        yield "SIGKILL in each stage", partial(kill_in_each_stage, calm, folder / "stages", options.seed)
    for name in SIGNALS if "kills" in parts else ():
        if name != "SIGKILL" or "stages" not in parts or options.minutes:  # one project with SIGKILL is enough
            yield name, partial(send, name, calm, folder, options)
    for name, (few, many, takes_project) in SCRIPTS.items() if "scripts" in parts else ():
        count, project = many if options.full else few, calm.project if takes_project else None
        if count:
            yield name, partial(script, name, options.seed, count, project)
    if "two" in parts:
        yield "two runs at once", partial(two_at_once, calm.template, folder / "two at once", calm.products)
    if "disk" in parts:
        rng = random.Random(options.seed)
        yield "disk full", partial(fill, calm.template, folder / "disk", calm.products, calm.used, options.disk, rng)
    for case in (SEPARATE if options.full else TOGETHER) if "machine" in parts else ():
        yield case.name, partial(check, case, calm.template, folder / case.name.replace("/", " "), calm.products)


def script(name: str, seed: int, count: int, project: Path | None) -> Part:
    """Run a program of this folder."""
    program = Path(__file__).parent / f"{name}.py"
    command = [sys.executable, str(program), f"--seed={seed}", f"--count={count}"]
    command += [f"--project={project}", f"--env={ENVIRONMENT}"] if project else []
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SCRIPT_SECONDS)
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")  # bytes, in spite of `text`
        return Part(name, "no result", (f"still running after {SCRIPT_SECONDS} s: {output[-3000:]}",))
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    problems = (done.stdout[-3000:] + done.stderr[-3000:],) if done.returncode else ()
    return Part(name, lines[-1] if lines else "no output", problems)


def _own_mounts() -> None:
    """Start this program again with its own table of mounts: then a mounted disk vanishes with it."""
    if os.geteuid() == 0 and "TORTURE_MOUNTS" not in os.environ and shutil.which("unshare"):
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            os.environ["TORTURE_MOUNTS"] = "own"
            os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
