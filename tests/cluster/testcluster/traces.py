"""Lists everything that a cluster could leave on a machine, for a comparison before and after."""

import subprocess
from pathlib import Path

import psutil

PROGRAMS = ("etcd", "containerd", "containerd-shim", "kube", "coredns", "pause", "unshare", "nsenter")
SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
FOLDERS = (
    "/run/containerd*",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni",
    "/run/netns/*",
)


def traces() -> dict[str, set[str]]:
    """Return processes, interfaces, routes, firewall rules, mounts, control groups, settings and folders."""
    groups = (group.rglob("*") for top in ("kubepods", "*/kubepods") for group in Path("/sys/fs/cgroup").glob(top))
    return {
        "processes": {
            f"{p.pid} {p.info['name']}" for p in psutil.process_iter(["name"]) if (p.info["name"] or "").startswith(PROGRAMS)
        },
        "interfaces": set(psutil.net_if_addrs()),
        "routes": _lines("ip", "route"),
        "firewall": _lines("iptables-save"),
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "control groups": {str(path) for group in groups for path in group},
        "settings": {f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in SETTINGS},
        "folders": {str(path) for pattern in FOLDERS for path in Path("/").glob(pattern[1:])},
    }


def _lines(*command: str) -> set[str]:
    found = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {line.split(" [")[0] for line in found if not line.startswith("#") and not line.startswith(":")}
