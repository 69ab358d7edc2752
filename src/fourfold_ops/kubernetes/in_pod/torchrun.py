"""torchrun for one pod, its rendezvous fixed beforehand. Its exit code is that of the process that failed first.

`python -m fourfold_ops.kubernetes.in_pod.torchrun GENERATION OPTIONS COMMAND ...`; `launch` has the same options.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

NUMBERS = ("nodes", "processes", "index", "port", "grace")


@dataclass(frozen=True)
class Place:
    """Which pod this is, of how many, and where pod 0 is found."""

    nodes: int
    processes: int  # in each pod
    index: int
    first: str  # name of pod 0
    port: int  # of torch's store, on pod 0; its gang's roll is kept on the next one
    grace: int  # seconds that processes have after SIGTERM to save
    command: tuple[str, ...]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Place":
        """Read the options and the command after them."""
        parser = argparse.ArgumentParser(allow_abbrev=False)
        for name in NUMBERS:
            parser.add_argument(f"--{name}", type=int, required=True)
        parser.add_argument("--first", required=True)
        parser.add_argument("command", nargs=argparse.REMAINDER)
        found = vars(parser.parse_args(arguments))
        return cls(**{**found, "command": tuple(found["command"])})

    def arguments(self) -> list[str]:
        """Return what `of` reads."""
        return [*(f"--{name}={getattr(self, name)}" for name in (*NUMBERS, "first")), *self.command]


def run(place: Place, generation: str) -> int:
    """Run torchrun in this process and return the exit code of the process that failed first, 0 if none did."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(arguments(place, generation))
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        print(f"Rank {rank} failed first (exit {first.exitcode}).", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def arguments(place: Place, generation: str) -> list[str]:
    """Return torchrun's arguments."""
    return [
        f"--nnodes={place.nodes}",
        f"--nproc-per-node={place.processes}",
        f"--node-rank={place.index}",
        f"--master-addr={place.first}",
        f"--master-port={place.port}",
        f"--rdzv-id={generation}",
        f"--shutdown-timeout={place.grace}",  # after SIGTERM; its own 30 s would cut a longer checkpoint off
        "--max-restarts=0",  # a lost node is no different from a lost process: the launchers begin anew, together
        "--no-python",
        *place.command,
    ]


if __name__ == "__main__":
    sys.exit(run(Place.of(sys.argv[2:]), sys.argv[1]))
