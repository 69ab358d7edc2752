"""Programs of the cluster: Kubernetes and CoreDNS are built here, the others come from the distribution."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from testcluster.errors import ClusterError, tail

MODULES = Path(__file__).parents[1] / "programs"
GO_AT_LEAST = (1, 26)
GO_TOOLCHAINS = (1, 21)  # since this version, go downloads a newer toolchain from the module proxy
PLUGINS = Path("/usr/lib/cni")
# Required programs and the Debian packages that contain them.
PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
PLUGIN_PACKAGE = "containernetworking-plugins"
INSTALL = "make cluster-install"


def cache_folder() -> Path:
    """Return the folder outside of the repository in which built programs are cached."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fourfold-cluster"


def missing() -> list[str]:
    """Return what this machine lacks to run a cluster."""
    found = [] if os.geteuid() == 0 else ["root (the cluster creates namespaces, mounts and cgroups)"]
    packages = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if not (PLUGINS / "bridge").exists():
        packages.add(PLUGIN_PACKAGE)
    found += [f"the package {package}" for package in sorted(packages)]
    version = go_version()
    if version < GO_TOOLCHAINS and not programs_are_built():
        had = f"this one is {'.'.join(map(str, version))}" if version else "there is none"
        found.append(f"go {'.'.join(map(str, GO_AT_LEAST))} or newer ({had}): https://go.dev/dl")
    return found


def check() -> None:
    """Raise ClusterError with everything that is missing and the command that installs it."""
    if lacks := missing():
        raise ClusterError(f"The test cluster needs {'; '.join(lacks)}. Packages: `{INSTALL}`.")


def install_packages() -> None:
    """Install missing packages (Debian, Ubuntu) without starting their services."""
    wanted = PACKAGES if programs_are_built() else {**PACKAGES, "go": "golang-go"}
    packages = sorted({p for program, p in wanted.items() if shutil.which(program) is None} | _plugins_wanted())
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"There is no apt-get on this system. Install these Debian packages or their equivalents: {', '.join(packages)}."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    print(f"Installing {', '.join(packages)}", flush=True)
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"`{' '.join(command)}` failed ({done.returncode}): {done.stderr.strip()[-1500:]}")


def go_version() -> tuple[int, ...]:
    """Return the version of `go` on the PATH, empty if there is none."""
    if shutil.which("go") is None:
        return ()
    environment = {**_go_environment(), "GOTOOLCHAIN": "local"}
    answer = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, env=environment).stdout
    return tuple(int(part) for part in re.findall(r"\d+", answer)[:2])


def built_folder() -> Path:
    """Return the folder of the built programs, named by a digest of their sources."""
    digest = hashlib.sha256()
    for path in sorted(MODULES.glob("*/*")):
        digest.update(path.relative_to(MODULES).as_posix().encode() + b"\0" + path.read_bytes())
    return cache_folder() / digest.hexdigest()[:16]


def programs_are_built() -> bool:
    """Return whether all programs are built."""
    return (built_folder() / "complete").exists()


def build() -> Path:
    """Build the programs unless they are built (about ten minutes on two cores); return their folder."""
    folder = built_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not programs_are_built():
            check()
            for module in sorted(MODULES.iterdir(), reverse=True):
                _build_module(module, folder)
            (folder / "complete").touch()
    return folder


def _build_module(module: Path, folder: Path) -> None:
    go_mod = (module / "go.mod").read_text()
    block = re.search(r"^tool \(\n(.*?)^\)", go_mod, re.MULTILINE | re.DOTALL)
    tools = block.group(1).split() if block else re.findall(r"^tool (\S+)$", go_mod, re.MULTILINE)
    version = re.search(r"k8s\.io/kubernetes (v\S+)", go_mod)
    flags = "-s -w" + (f" -X k8s.io/component-base/version.gitVersion={version.group(1)}" if version else "")
    print(f"Building {', '.join(tool.rpartition('/')[-1] for tool in tools)} (once)", flush=True)
    log = folder / f"build-{module.name}.log"
    with log.open("w") as file:
        command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", f"{folder}/", *tools]
        toolchain = "local" if go_version() >= GO_AT_LEAST else f"go{'.'.join(map(str, GO_AT_LEAST))}.0+auto"
        environment = {**_go_environment(), "GOTOOLCHAIN": toolchain}
        done = subprocess.run(command, cwd=module, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise ClusterError(f"`go build` of {module.name} failed ({done.returncode}); the end of {log}:\n{tail(log)}")


def _go_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}


def _plugins_wanted() -> set[str]:
    return set() if (PLUGINS / "bridge").exists() else {PLUGIN_PACKAGE}
