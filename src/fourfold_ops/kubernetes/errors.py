"""How a run that goes wrong ends: exceptions whose one line is all that the user has to read, each with its exit code."""

import contextlib
from collections.abc import Iterator

from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_TRY_AGAIN, UserError
from fourfold_ops.kubernetes.client import UNTRUSTED, ApiAwayError, ApiError
from fourfold_ops.kubernetes.verdicts.refused import forbidden, unknown, untrusted


class StepFailedError(Exception):
    """Steps failed; the message is the verdict. The location is in it, so nothing is put before it."""

    location = ""

    def __init__(self, lines: list[str], configuration: bool) -> None:
        super().__init__(lines[0] + (f" (and {len(lines) - 1} more failed, see above)" if len(lines) > 1 else ""))
        self.exit_code = EXIT_CONFIGURATION if configuration else EXIT_FAILED


class DriverCutOffError(Exception):
    """The driver has lost the cluster; what runs there goes on."""

    location, exit_code = "", EXIT_TRY_AGAIN

    def __init__(self, away: ApiAwayError, again: str) -> None:
        super().__init__(f"{away} Jobs go on without the driver.")
        self.remedy = f"Take the run up again with: {again}"


def refusal_in_words(error: ApiError, title: str) -> Exception:
    """Return what to raise for a refusal: in words where the user can do something about it, else as it is."""
    if error.status == UNTRUSTED:
        return UserError(untrusted(error.resource, error.message).line(title))
    if error.status == 401:
        return UserError(unknown(error.message).line(title))
    if error.status == 403:
        return UserError(forbidden(error.verb, error.resource, error.namespace, error.message).line(title))
    return error


@contextlib.contextmanager
def in_words(title: str) -> Iterator[None]:
    """Turn what the server refuses, or that it is away, into one line."""
    try:
        yield
    except ApiAwayError as away:
        raise UserError(str(away), "Is the cluster up, and the kubeconfig the right one?") from None
    except ApiError as error:
        raise refusal_in_words(error, title) from None
