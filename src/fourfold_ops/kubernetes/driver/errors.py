"""Errors of the runner, each with a message on one line and an exit code."""

import contextlib
from collections.abc import Iterator

from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_TRY_AGAIN, UserError
from fourfold_ops.kubernetes.cluster.client import UNTRUSTED, ApiError, ApiUnreachableError
from fourfold_ops.kubernetes.verdicts.refused import forbidden, unauthenticated, untrusted


class StepFailedError(Exception):
    """One or more steps failed.

    Args:
        lines: The verdicts.
        configuration: Whether one of them is a bad configuration, which decides the exit code.
    """

    location = ""  # the verdict starts with the step, so no location is printed before it

    def __init__(self, lines: list[str], configuration: bool) -> None:
        super().__init__(lines[0] + (f" (and {len(lines) - 1} more failed, see above)" if len(lines) > 1 else ""))
        self.exit_code = EXIT_CONFIGURATION if configuration else EXIT_FAILED


class DriverCutOffError(Exception):
    """The API server is unreachable for too long; running Jobs continue without the driver."""

    location, exit_code = "", EXIT_TRY_AGAIN

    def __init__(self, error: ApiUnreachableError, again: str) -> None:
        super().__init__(f"{error} Running Jobs continue without the driver.")
        self.remedy = f"Resume the run with: {again}"


def readable_error(error: ApiError, title: str) -> Exception:
    """Return the error to raise for a refusal: a UserError if the user can correct it, else `error` itself."""
    if error.status == UNTRUSTED:
        return UserError(untrusted(error.resource, error.message).line(title))
    if error.status == 401:
        return UserError(unauthenticated(error.message).line(title))
    if error.status == 403:
        return UserError(forbidden(error.verb, error.resource, error.namespace, error.message).line(title))
    return error


@contextlib.contextmanager
def readable_errors(title: str) -> Iterator[None]:
    """Replace errors of the API client by UserErrors with a remedy."""
    try:
        yield
    except ApiUnreachableError as error:
        raise UserError(str(error), "Check that the cluster runs and that the kubeconfig is the right one.") from None
    except ApiError as error:
        raise readable_error(error, title) from None
