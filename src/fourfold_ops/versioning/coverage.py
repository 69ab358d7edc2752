"""What DVC says about the results that a run builds on."""

import dataclasses
import logging
import os
from pathlib import Path

from fourfold_ops.tracking.coverage import Coverage
from fourfold_ops.versioning.repository import stage_names, status

logger = logging.getLogger(__name__)


def with_lock(coverage: Coverage, project_path: Path) -> Coverage:
    """Return the coverage of a run with what dvc.lock says about its stages and those that they depend on.

    Under `dvc repro`, DVC records the stage of this process itself, after the process.
    """
    if not (project_path / "dvc.yaml").exists() or not (project_path / ".dvc").is_dir():
        return coverage
    running = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    try:
        known = stage_names(project_path)
        own = [stage for stage in (*coverage.whole, *coverage.part) if stage in known]
        changed = set(status(project_path, own, running)) if own else set()
    except Exception:  # a damaged lock: the next commit sets it aside
        logger.debug("DVC could not compare the results.", exc_info=True)
        return dataclasses.replace(coverage, recorded=False)
    changed = {name.rpartition(":")[2] for name in changed}
    recorded = not changed & set(coverage.whole)
    return dataclasses.replace(coverage, recorded=recorded, outdated=tuple(s for s in known if s in changed - set(own)))
