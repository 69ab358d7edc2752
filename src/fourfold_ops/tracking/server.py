"""Checks that a tracking server answers, before a run starts; MLflow itself would retry for minutes."""

import urllib.error
import urllib.request

from fourfold_ops.errors import UserError

SECONDS = 5.0


def check_answers(uri: str, setting: str) -> None:
    """Send one request to the health page of an MLflow server.

    Args:
        uri: Address of the server; nothing is checked unless it starts with http.
        setting: Where the address comes from, for the message, e.g. "MLFLOW_TRACKING_URI".

    Raises:
        UserError: Nothing answers within `SECONDS`. An answer with an error status passes: MLflow can explain it better.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SECONDS):  # noqa: S310, the scheme is checked
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = f"no answer within {SECONDS:.0f} s" if isinstance(reason, TimeoutError) else str(reason)
        raise UserError(
            f"The MLflow server {uri} does not answer ({text}).",
            f"Start it, or correct its address in {setting}. `kedro run --offline-tracking` records the run here and sends it "
            "later. Without MLFLOW_TRACKING_URI and conf/local/tracking.yml, runs are recorded in data/mlflow.db.",
        ) from None
