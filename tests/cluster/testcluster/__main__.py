"""`python -m testcluster install | build | up | down`: manage the test cluster by hand."""

import sys

from testcluster.cluster import Cluster, remove_stale, running
from testcluster.errors import ClusterError
from testcluster.programs import build, install_packages

USAGE = "Use: python -m testcluster install | build | up | down"


def main(verb: str) -> None:
    """Run a command. Raises ClusterError if it is not possible."""
    if verb == "install":
        install_packages()
    elif verb == "build":
        print(f"The cluster's programs are in {build()}.")
    elif verb == "up":
        folder = running(kept=True)
        cluster = Cluster.attach(folder) if folder else Cluster.start(kept=True)
        print(
            f"The cluster is up. export KUBECONFIG={cluster.kubeconfig}; PATH={cluster.programs}:$PATH. "
            "Stop it with: make cluster-down"
        )
    elif verb == "down":
        if folder := running():
            Cluster.attach(folder).stop()
        remove_stale()
    else:
        raise ClusterError(USAGE)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) == 2 else "")
    except ClusterError as error:
        sys.exit(f"Failed: {error}")
