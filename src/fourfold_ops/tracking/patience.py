"""A client of an MLflow server that may be away for a while: calls are repeated, and metrics wait in memory meanwhile."""

import functools
import logging
import os
import re
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

logger = logging.getLogger(__name__)
NO_ANSWER = re.compile(r"failed with (timeout )?exception|failed with error code 5\d\d")
WAIT_SECONDS = 1800.0  # for a server that is away in the middle of a run; a restart or an update takes minutes
MAX_PAUSE = 30.0  # seconds between two attempts
# MLflow itself would repeat a request for minutes without a word, and wait for an answer for two minutes.
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def is_away(error: BaseException) -> bool:
    """Return whether an error means that the server did not answer, or could not for another reason (5xx, rate limits)."""
    import requests

    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return True
    # MLflow has one type for all errors; an answer of the tracking server itself is a RestException.
    is_answer = type(error).__name__ == "RestException"
    return type(error).__module__ == "mlflow.exceptions" and not is_answer and NO_ANSWER.search(str(error)) is not None


class PatientClient:
    """An MLflow client whose methods wait while the server is away.

    Each method of `inner` is called again until the server answers, for `seconds` at most; a warning says so once. An error of
    the request itself is raised at once.
    """

    def __init__(self, inner: Any, seconds: float = WAIT_SECONDS) -> None:
        self.impatient = inner  # for callers that can wait without standing still
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.impatient, name)
        return self._patient(attribute) if callable(attribute) else attribute

    def _patient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            attempts = Retrying(
                retry=retry_if_exception(is_away),
                stop=stop_after_delay(self._seconds),
                wait=wait_exponential(1, max=MAX_PAUSE),
                before_sleep=self._report,
                reraise=True,
            )
            result = attempts(function, *arguments, **named)
            if attempts.statistics.get("attempt_number", 1) > 1:
                logger.info("The MLflow server answers again.")
            return result

        return call

    def _report(self, state: RetryCallState) -> None:
        if state.attempt_number == 1:
            logger.warning(
                "The MLflow server does not answer. The run waits up to %.0f minutes for it; nothing is lost.",
                self._seconds / 60,
            )


def limit_requests() -> None:
    """Let MLflow give up a request soon, unless the environment decides: `PatientClient` repeats it, and says so."""
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
