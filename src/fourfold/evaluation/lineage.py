"""What results are about: those of another model, tokenizers or labels than the evaluated ones are left out and named.

Results that a stage stores carry `about`, the digests of what they were measured on (`{"tokenizers": "3f…"}`); transfer
results carry `model`, that of their model.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)
ABOUT = "about"
SHORT = 8  # hex digits of a digest in messages


@dataclass(frozen=True)
class Kind:
    """A kind of results: its title, what it is about, and the pipelines that make it again."""

    title: str
    about: tuple[str, ...]
    pipelines: str


KINDS = {
    "transfer": Kind("transfer results", ("model",), "finetuning,evaluation"),
    "teachers": Kind("teacher metrics", ("teachers", "labels"), "pseudo_labeling,evaluation"),
    "tokenizers": Kind("tokenizer metrics", ("tokenizers", "labels"), "tokenizer_training,evaluation"),
    "pretraining": Kind("pretraining metrics", ("weights",), "pretraining,evaluation"),
}
OF_TRAINING = ("tokenizers", "pretraining")  # kinds that only a model that was trained here has


def mismatch(name: str, results: Mapping[str, Any], evaluated: Mapping[str, str]) -> str:
    """Return a sentence if results are about something else than what is evaluated; "" if they are about the same.

    Args:
        name: of `KINDS`.
        results: as their stage stored them.
        evaluated: digests of what is evaluated, by the names in `Kind.about`.
    """
    kind, found = KINDS[name], {"model": results.get("model"), **results.get(ABOUT, {})}
    others = [
        f"{key} {_short(found.get(key))}, evaluated: {_short(evaluated.get(key))}"
        for key in kind.about
        if found.get(key) is None or found.get(key) != evaluated.get(key)
    ]
    if not others:
        return ""
    return (
        f"The {kind.title} are left out, because they were measured on something else than what is evaluated "
        f"({'; '.join(others)}). "
        f"To make them again: kedro run --pipelines={kind.pipelines}"
    )


def of_evaluated(
    results: Mapping[str, Mapping[str, Any]], evaluated: Mapping[str, str], is_imported: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Return the results of each kind that are about what is evaluated, without their digests, and what was left out.

    Results of another model are empty. Each sentence about them is logged as a warning.

    Args:
        results: by the names of `KINDS`, as their stages stored them; {} where there are none.
        evaluated: digests of what is evaluated.
        is_imported: whether the model was not trained here; then it has no metrics of tokenizers and pretraining.
    """
    kept: dict[str, Any] = {}
    left_out = []
    for name, values in results.items():
        if is_imported and name in OF_TRAINING and mismatch(name, values, evaluated):
            kept[name] = {}
            continue
        if sentence := mismatch(name, values, evaluated):
            logger.warning("%s", sentence)
            left_out.append(sentence)
        kept[name] = {} if sentence else {key: value for key, value in values.items() if key != ABOUT}
    return kept, left_out


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "not recorded"
