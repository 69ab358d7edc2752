"""Machines with limits: a run ends with equal results, or with one line and the documented code."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from part import Part
from project import Outcome, Project, difference

# Python code that a new process executes before it becomes `kedro run`.
NAMESPACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
NEWNS, NEWNET, PRIVATE, BIND, REMOUNT_READ_ONLY = 0x20000, 0x40000000, 0x44000, 0x1000, 0x1021
"""
OWN_MOUNTS = f"{NAMESPACE}\ncall('unshare', NEWNS); call('mount', b'none', b'/', None, PRIVATE, None)\n"
NO_NETWORK = f"{NAMESPACE}\ncall('unshare', NEWNET)\n"
NO_SHARED_MEMORY = (
    OWN_MOUNTS
    + """
os.makedirs('/tmp/torture-empty', exist_ok=True)
for flags in (BIND, REMOUNT_READ_ONLY):
    call('mount', b'/tmp/torture-empty', b'/dev/shm', None, flags, None)
"""
)
READ_ONLY = (
    OWN_MOUNTS
    + """
here = os.getcwd().encode()
for flags in (BIND, REMOUNT_READ_ONLY):
    call('mount', here, here, None, flags, None)
os.chdir(here)
"""
)
FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
# Python may be installed in root's home, which others cannot enter: then only its folder is shown there.
NOBODY = (
    OWN_MOUNTS
    + """
import pathlib, sys
base = pathlib.Path(sys.base_prefix)
if closed := [path for path in reversed(base.parents) if path.stat().st_mode & 5 != 5]:
    aside = b'/tmp/torture-python'
    os.makedirs(aside, exist_ok=True)
    call('mount', str(base).encode(), aside, None, BIND, None)
    call('mount', b'none', str(closed[0]).encode(), b'tmpfs', 0, b'mode=755')
    base.mkdir(parents=True)
    call('mount', aside, str(base).encode(), None, BIND, None)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
)


@dataclass(frozen=True)
class Case:
    """A limit of the machine, and the exit code of a run with it; 0: with equal results."""

    name: str
    first: str
    code: int = 0
    owner: int = 0  # user id of the project's files

    @property
    def needs_root(self) -> bool:
        """Return whether only root can set the limit."""
        return self.first != FEW_FILES


REFUSED = (Case("files of another user", NOBODY, code=78), Case("read-only project", READ_ONLY, code=78))
SEPARATE = (
    Case("64 open files", FEW_FILES),
    Case("no network", NO_NETWORK),
    Case("no /dev/shm", NO_SHARED_MEMORY),
    Case("not root", NOBODY, owner=65534),
    *REFUSED,
)
ALL_LIMITS = f"{FEW_FILES}{NO_NETWORK}{NO_SHARED_MEMORY}{NOBODY}"
TOGETHER = (Case("64 files, no network, no /dev/shm, not root", ALL_LIMITS, owner=65534), *REFUSED)


def check(case: Case, template: Path, folder: Path, wanted: dict[str, str]) -> Part:
    """Run a new project under a limit."""
    if case.needs_root and os.geteuid():
        return Part(case.name, "needs root", is_skipped=True)
    project = Project.copy_of(template, folder)
    if case.owner:
        subprocess.run(["chown", "-R", str(case.owner), str(folder)], check=True)
    before = project.files()
    outcome = project.run(first=case.first)
    problems = problems_of(outcome, case.code)
    if not problems and case.code:
        problems += [f"{name} was changed" for name in difference(before, project.files())]
    elif not problems:
        problems += [f"{name} differs" for name in difference(wanted, project.products())] + project.faults()
    if not problems:
        project.remove()
    text = outcome.last_line if case.code else "the run ends with 0 and equal bytes"
    return Part(case.name, f"exit code {outcome.code}: {text}", tuple(problems))


def problems_of(outcome: Outcome, code: int) -> list[str]:
    """Return what is wrong with the end of a run that must end with `code`, and with one line unless that is 0."""
    if outcome.code != code:
        return [f"exit code {outcome.code}, expected {code}: {outcome.text[-1500:]}"]
    if "Traceback" in outcome.text:
        return [f"a traceback: {outcome.text[-1500:]}"]
    return [] if code == 0 or outcome.last_line.startswith("Failed") else [f"the last line is no error: {outcome.last_line}"]


def two_at_once(template: Path, folder: Path, wanted: dict[str, str]) -> Part:
    """Start a second run beside the first one at three moments."""
    project, problems, refused = Project.copy_of(template, folder), [], 0
    first = project.start()
    for moment in ("Ingestion kept", "Completed 5 out of", "Completed 12 out of"):
        wait_for(lambda text=moment: text in first.text() or first.poll() is not None)
        if first.poll() is not None:
            problems.append(f"the first run ended before {moment!r}: {first.text()[-1500:]}")
            break
        second = Project(folder, "second").run("--params=pretraining.loop.log_every=1")
        refused += second.code == 69
        problems += problems_of(second, 69)
    if code := first.wait(600):
        problems.append(f"the first run ended with {code}: {first.text()[-1500:]}")
    if not problems:
        problems += [f"{name} differs" for name in difference(wanted, project.products())] + project.faults()
        project.remove()
    return Part("two runs at once", f"{refused} of 3 second runs refused with 69; the first has equal bytes", tuple(problems))


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until a condition holds; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {seconds} s")
        time.sleep(0.02)
