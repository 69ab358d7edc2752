"""Who runs, on which machine and with which packages."""

import getpass
import hashlib
import os
import platform
import socket
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

import psutil

from fourfold_ops import handover
from fourfold_ops.tracking import names

REQUIREMENTS = "requirements.lock"


def machine_tags() -> dict[str, str]:
    """Return user and machine, as far as no library of a stage is needed for it."""
    return {
        names.USER: user(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "machine.host": socket.gethostname(),
        "machine.cpu": _cpu(),
        "machine.num_cpus": str(_num_cpus()),
        "machine.memory_gb": f"{psutil.virtual_memory().total / 1e9:.1f}",
    }


def user() -> str:
    """Return the name of the user; the number where a container has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def installed_packages() -> str:
    """Return the installed packages as `name==version`, one a line, sorted."""
    named = (_name_and_version(package) for package in distributions())
    found = {f"{name.lower().replace('_', '-')}=={version}" for name, version in named if name}
    return "".join(f"{line}\n" for line in sorted(found))


def _name_and_version(package: Distribution) -> tuple[str, str]:
    """Return both; `Distribution` would parse the whole description twice, which takes a second for all packages."""
    text = package.read_text("METADATA") or package.read_text("PKG-INFO") or package.read_text("") or ""
    headers = HeaderParser().parsestr(text.partition("\n\n")[0])
    return headers["Name"] or "", headers["Version"] or ""


def environment_tags(project_path: Path, packages: str) -> dict[str, str]:
    """Return digests of the installed packages and of the lock file, and the container image if there is one."""
    tags = {names.PACKAGES_SHA256: hashlib.sha256(packages.encode()).hexdigest()}
    lock = project_path / REQUIREMENTS
    if lock.is_file():
        tags[names.REQUIREMENTS_SHA256] = hashlib.sha256(lock.read_bytes()).hexdigest()
    if image := os.environ.get(handover.IMAGE):
        tags[names.IMAGE] = image
    return tags


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
