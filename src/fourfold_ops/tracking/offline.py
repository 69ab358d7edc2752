"""Recording without the tracking server: `kedro run --offline-tracking` writes into a store on disk, which is sent later."""

import os

VARIABLE = "KEDRO_OFFLINE_TRACKING"  # set by the option, also for processes that the run starts
FOLDER = "data/offline_tracking"  # relative to the project
URI = f"sqlite:///{FOLDER}/mlflow.db"
ARTIFACTS = f"{FOLDER}/artifacts"


def is_requested() -> bool:
    """Return whether this process records without the server."""
    return os.environ.get(VARIABLE) == "1"


def request() -> None:
    """Record without the server from now on."""
    os.environ[VARIABLE] = "1"
