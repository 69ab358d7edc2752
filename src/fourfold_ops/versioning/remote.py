"""Pushes the results of a run to the DVC remote, so that others can pull them."""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.secrets import redact
from fourfold_ops.versioning.repository import addresses

logger = logging.getLogger(__name__)
PUSH_VARIABLE = "KEDRO_PUSH"  # set by `kedro run --push`


def is_push_requested() -> bool:
    """Return whether this run pushes its results."""
    return os.environ.get(PUSH_VARIABLE) == "1"


def check_remote(project_path: Path) -> None:
    """Raise UserError if the results of a run could not be pushed: there is no default remote, or its package is missing."""
    from dvc.config import ConfigError, NoRemoteError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project_path)) as repo:
            _ = repo.cloud.get_remote(command="push").fs  # imports the package of the remote, and does not connect
    except NoRemoteError:
        raise UserError(
            "--push needs a DVC remote, and none is the default.",
            "Add one: dvc remote add --default NAME ADDRESS (docs/operations.md); nothing was changed.",
        ) from None
    except (ConfigError, DvcException, ImportError) as error:
        raise UserError(f"The DVC remote cannot be used: {redact(str(error))}", "Correct .dvc/config.") from error


def push(project_path: Path, stages: Collection[str]) -> int:
    """Push the results of stages, as dvc.lock names them, to the default remote; return the number of new files.

    Raises:
        DvcException: The remote cannot be reached or written, or results are missing in the cache.
    """
    from dvc.repo import Repo

    with Repo(str(project_path)) as repo:
        pushed: Any = repo.push(targets=addresses(project_path, stages))
        logger.info("Pushed to the DVC remote %s: %d files.", repo.config["core"].get("remote", ""), pushed)
        return int(pushed)
