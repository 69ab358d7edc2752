"""Times and memory of every way to answer the tasks, measured in one process of one run, so that they can be compared."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fourfold.specialists.answering import Way
from fourfold.specialists.measuring import measure_latencies
from fourfold.specialists.training import SpecialistSet
from fourfold.training.precision import compute_facts

ALL = "all"
GENERALIST = "generalist"


def measure_costs(
    ways: Sequence[Way], specialists: SpecialistSet, rgb_HWC: np.ndarray, generalist: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Measure latencies, and gather what the trainings took.

    Args:
        ways: the rows of the table.
        specialists: the trained specialists, which recorded what their trainings took.
        rgb_HWC: the image that is predicted again and again.
        generalist: what its training took, of `generalist_costs`; None if it is not known.

    Returns:
        `latency`: milliseconds for one image by row and label, and for all labels together, under `all`; `training` by
        specialist and for the generalist; `machine`.
    """
    image_BHWC = rgb_HWC[None]
    actions = {}
    for way in [way for way in ways if way.is_timed]:
        for target in way.targets:
            actions[way.name, target] = partial(way.answer, image_BHWC, (target,))
        if len(way.targets) > 1:
            actions[way.name, ALL] = partial(way.answer, image_BHWC, way.targets)
    named = {"/".join(key): action for key, action in actions.items()}
    found = measure_latencies(named, specialists.config.latency_rounds)
    latency: dict[str, dict[str, float]] = {}
    for row, label in actions:
        latency.setdefault(row, {})[label] = round(found[f"{row}/{label}"], 3)
    training = {one.name: specialists.costs(one) for one in specialists.config.chosen()}
    training[GENERALIST] = [] if generalist is None else [dict(generalist)]
    return {"latency": latency, "training": training, "machine": compute_facts("fp32")}


def generalist_costs(pretraining: Mapping[str, Any] | None, stage_seconds: Mapping[str, float]) -> dict[str, Any] | None:
    """Return what the generalist's training took, its tokenizers included, as for a specialist.

    The seconds of the tokenizers were recorded when they were trained, perhaps on a busy machine or with other threads. They
    are scaled by what pretraining takes here, compared with what was recorded for it in the same run.

    Args:
        pretraining: of `probe_pretraining`.
        stage_seconds: what the stages of the run took that trained it.

    Returns:
        None without a measured pretraining; `seconds` is None without records.
    """
    if pretraining is None:
        return None
    recorded, tokenizers = (stage_seconds.get(name) for name in ("pretraining", "tokenizer_training"))
    if not recorded or tokenizers is None or pretraining["seconds"] is None:
        return {**pretraining, "seconds": None, "pretraining_seconds": pretraining["seconds"]}
    of_tokenizers = tokenizers * pretraining["seconds"] / recorded
    return {
        **pretraining,
        "seconds": round(pretraining["seconds"] + of_tokenizers, 3),
        "pretraining_seconds": pretraining["seconds"],
        "tokenizer_seconds": round(of_tokenizers, 3),
    }
