"""Runs torchrun for one pod with a fixed rendezvous, and exits with the code of the process that failed first.

`python -m fourfold_ops.kubernetes.in_pod.torchrun ATTEMPT OPTIONS COMMAND ...`; `launch` starts it with its own
options.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

INTEGER_OPTIONS = ("nodes", "processes", "index", "port", "grace")


@dataclass(frozen=True)
class LaunchOptions:
    """What to start in this pod, and where pod 0 is."""

    nodes: int  # number of pods
    processes: int  # in each pod
    index: int  # of this pod
    first: str  # host name of pod 0
    port: int  # of torch's store on pod 0; the coordinator of the restart group listens on port + 1
    grace: int  # seconds that processes have to save a checkpoint after SIGTERM
    command: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "LaunchOptions":
        """Parse the options and the command that follows them."""
        parser = argparse.ArgumentParser(allow_abbrev=False)
        for name in INTEGER_OPTIONS:
            parser.add_argument(f"--{name}", type=int, required=True)
        parser.add_argument("--first", required=True)
        parser.add_argument("command", nargs=argparse.REMAINDER)
        values = vars(parser.parse_args(arguments))
        return cls(**{**values, "command": tuple(values["command"])})

    def arguments(self) -> list[str]:
        """Return the arguments that `parse` turns into these options."""
        return [*(f"--{name}={getattr(self, name)}" for name in (*INTEGER_OPTIONS, "first")), *self.command]


def run(options: LaunchOptions, attempt: str) -> int:
    """Run torchrun in this process and return the exit code of the process that failed first, 0 if none failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(torchrun_arguments(options, attempt))
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        print(f"Rank {rank} failed first (exit {first.exitcode}).", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode  # killed by signal n: 128 + n, as in shells
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def torchrun_arguments(options: LaunchOptions, attempt: str) -> list[str]:
    """Return the arguments of torchrun."""
    return [
        f"--nnodes={options.nodes}",
        f"--nproc-per-node={options.processes}",
        f"--node-rank={options.index}",
        f"--master-addr={options.first}",
        f"--master-port={options.port}",
        f"--rdzv-id={attempt}",
        f"--shutdown-timeout={options.grace}",  # torchrun's default of 30 s would interrupt a longer checkpoint
        "--max-restarts=0",  # the launchers restart all pods together, for a failed process as for a lost node
        "--no-python",
        *options.command,
    ]


if __name__ == "__main__":
    sys.exit(run(LaunchOptions.parse(sys.argv[2:]), sys.argv[1]))
