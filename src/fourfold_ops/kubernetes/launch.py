"""torchrun, whose exit code is that of the process that failed first: the Job decides by it whether to try again.

`python -m fourfold_ops.kubernetes.launch TORCHRUN-OPTIONS COMMAND ...`
"""

import sys


def main(arguments: list[str]) -> int:
    """Run torchrun with `arguments` and return the exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(arguments)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        print(f"Rank {rank} failed first (exit {first.exitcode}).", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
