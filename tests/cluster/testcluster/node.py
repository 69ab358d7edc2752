"""Configurations and command lines of containerd, kubelet, kube-proxy, the network of pods, and DNS."""

import json
import sys
from pathlib import Path
from typing import Any

from testcluster.identities import NODE
from testcluster.machine import BRIDGE, GATEWAY, NODE_ADDRESS, PODS
from testcluster.programs import PLUGINS

SOCKET = "/run/containerd.sock"
PAUSE = "localhost/pause:1"
ENVIRONMENT = "/opt/environment"  # as in k8s/image/Dockerfile

# restrict_oom_score_adj: without CAP_SYS_RESOURCE every pod would fail with "can't get final child's PID from pipe: EOF".
# root: in memory, since images are tiny and temporary. native: plain copies, which work on any file system.
CONTAINERD = """\
version = 2
root = "/run/containerd-root"
state = "/run/containerd-state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{folder}/container.json"
"""


def write_containerd(folder: Path) -> list[str]:
    """Write the configuration of containerd and of the network of pods; return the command line."""
    (folder / "cni").mkdir()
    (folder / "cni/10-pods.conflist").write_text(json.dumps(_network(), indent=1))
    config = folder / "containerd.toml"
    config.write_text(CONTAINERD.format(folder=folder, socket=SOCKET, pause=PAUSE, plugins=PLUGINS))
    return ["containerd", "--config", str(config)]


def _network() -> dict[str, Any]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS, "gateway": GATEWAY}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def write_container_defaults(folder: Path, defaults: str) -> None:
    """Write the base specification of containers: containerd's `defaults` (JSON) and read-only mounts of this machine.

    So an image contains only the code of a project. The system and the Python environment (6 GB with CUDA, which
    would take 15 minutes to pack) appear as part of the image, without a hostPath volume, which Pod Security forbids.
    """
    spec = json.loads(defaults)
    for source, place in shared_folders().items():
        spec["mounts"].append({"destination": place, "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid"]})
    (folder / "container.json").write_text(json.dumps(spec))


def shared_folders() -> dict[str, str]:
    """Return the folders of this machine that containers mount, by source: system, Python and its environment."""
    system = [Path("/usr"), *(p for p in map(Path, ("/bin", "/lib", "/lib64", "/sbin")) if p.is_dir() and not p.is_symlink())]
    pythons = {
        p for p in (Path(sys.base_prefix), Path(sys.base_prefix).resolve()) if not any(p.is_relative_to(s) for s in system)
    }
    return {**{str(p): str(p) for p in (*system, *sorted(pythons))}, sys.prefix: ENVIRONMENT}


def write_kubelet(folder: Path, programs: Path, identities: Path) -> list[str]:
    """Write the configuration of kubelet; return the command line."""
    (folder / "resolv.conf").write_text("")
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{identities}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},  # only the API server has a client certificate
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [GATEWAY],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{folder}/resolv.conf",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "4s",
        "serializeImagePulls": False,
        "maxPods": 200,
        "healthzBindAddress": "127.0.0.1",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    }
    (folder / "kubelet.yaml").write_text(json.dumps(config, indent=1))
    return [
        f"{programs}/kubelet",
        f"--config={folder}/kubelet.yaml",
        f"--kubeconfig={identities}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
        "--node-labels=fourfold.test/accelerator=simulated",
    ]


def write_proxy(folder: Path, programs: Path, identities: Path) -> list[str]:
    """Write the configuration of kube-proxy, which makes Services reachable; return the command line."""
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{identities}/proxy.kubeconfig"},
        "mode": "iptables",
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"masqueradeAll": True},  # responses return through the node even if both pods are on its bridge
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
    (folder / "proxy.yaml").write_text(json.dumps(config, indent=1))
    return [f"{programs}/kube-proxy", f"--config={folder}/proxy.yaml"]


COREFILE = """\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig} fourfold-test
        ttl 5
    }}
}}
"""


def write_dns(folder: Path, programs: Path, identities: Path) -> list[str]:
    """Write the configuration of CoreDNS, for names of the cluster only; return the command line."""
    (folder / "Corefile").write_text(COREFILE.format(address=GATEWAY, kubeconfig=identities / "dns.kubeconfig"))
    return [f"{programs}/coredns", "-conf", f"{folder}/Corefile"]


DNS_ROLE_BINDING: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "fourfold-dns"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "fourfold-dns"}],
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fourfold-dns"},
}
DNS_ROLE: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "fourfold-dns"},
    "rules": [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ],
}
