"""Command lines of etcd, API server, controller manager and scheduler."""

from pathlib import Path

from testcluster.identities import API
from testcluster.machine import NODE_ADDRESS, PODS, SERVICES

ETCD = "http://127.0.0.1:2379"
ETCD_PEERS = "http://127.0.0.1:2380"


def etcd(folder: Path) -> list[str]:
    """Return the command line of etcd, with one member and without fsync, since it runs for minutes only."""
    return [
        "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEERS}",
        f"--initial-advertise-peer-urls={ETCD_PEERS}",
        f"--initial-cluster=default={ETCD_PEERS}",
        "--unsafe-no-fsync",
    ]


def api_server(programs: Path, identities: Path, audit: Path) -> list[str]:
    """Return the command line of the API server, with the default admission plugins, including Pod Security."""
    return [
        f"{programs}/kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--bind-address={NODE_ADDRESS}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={identities}/server.crt",
        f"--tls-private-key-file={identities}/server.key",
        f"--kubelet-client-certificate={identities}/kubelet-client.crt",
        f"--kubelet-client-key={identities}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--token-auth-file={identities}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={identities}/service-account.key",
        f"--service-account-signing-key-file={identities}/service-account.key",
        f"--audit-policy-file={audit.with_suffix('.policy')}",
        f"--audit-log-path={audit}",
        "--profiling=false",
    ]


# Logs callers and resources without content; bench.py counts the calls of a driver in it.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]}
  - level: None
    users: ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy", "fourfold-dns"]
  - {level: Metadata}
"""


def controller_manager(programs: Path, identities: Path) -> list[str]:
    """Return the controller manager's command line."""
    return [
        f"{programs}/kube-controller-manager",
        f"--kubeconfig={identities}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={identities}/service-account.key",
        f"--root-ca-file={identities}/ca.crt",
        "--use-service-account-credentials",
        f"--cluster-cidr={PODS}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--node-monitor-grace-period=20s",
        "--profiling=false",
    ]


def scheduler(programs: Path, identities: Path) -> list[str]:
    """Return the scheduler's command line."""
    return [
        f"{programs}/kube-scheduler",
        f"--kubeconfig={identities}/scheduler.kubeconfig",
        f"--master={API}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]
