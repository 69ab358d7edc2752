"""Makes what a run registered the candidate."""

import logging
from typing import Any

from fourfold_ops.registry.history import History
from fourfold_ops.registry.versions import CANDIDATE, PARENT
from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import REGISTERED_MODEL

logger = logging.getLogger(__name__)


def confirm(client: Any, run_id: str) -> None:
    """Make what a run registered the candidate.

    Args:
        client: of MLflow.
        run_id: of the parent or of one of its stages.
    """
    info = client.get_run(run_id)
    parent = info.data.tags.get(PARENT, run_id)
    wanted = f"tags.`{PARENT}` = '{parent}' AND tags.`{REGISTERED_MODEL}` LIKE 'models:/%'"
    for stage in client.search_runs([info.info.experiment_id], wanted):
        _, name, number = stage.data.tags[REGISTERED_MODEL].split("/")
        if names.MODEL_RUN not in client.get_model_version(name, number).tags:  # usually, TrackingHook has described it
            client.set_model_version_tag(name, number, names.MODEL_RUN, stage.info.run_id)
            client.set_model_version_tag(name, number, names.MODEL_PARENT_RUN, parent)
        History(client, name)  # exists before the first promotion, so that two at once meet in the same one
        client.set_registered_model_alias(name, CANDIDATE, number)
        logger.info("%s, version %s, is the candidate. To promote it: kedro models promote candidate", name, number)
