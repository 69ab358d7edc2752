"""What a labeler is: it looks at a batch of samples and says one modality of each."""

from typing import Any, Protocol, TypeAlias, runtime_checkable

Batch: TypeAlias = dict[str, Any]
"""Columns of equal length B: `rgb` (B, H, W, 3) uint8, `caption` list of str, and the labels made so far, in the formats of
`fourfold.modalities.LABELS`. Labelers share it: what one computes on the way, another may find there."""


@runtime_checkable
class Labeler(Protocol):
    """Says one modality of every sample of a batch.

    `name` is that of the registry; `modality` an entry of `fourfold.modalities.LABELS`; `needs` the columns it reads, which
    may be other labels (normals need `depth`): labelers run in the order that this gives. `version` enters the fingerprint
    of the labels, so raise it when the same weights would label differently.
    """

    name: str
    modality: str
    needs: tuple[str, ...]
    version: str

    def label(self, batch: Batch) -> list[Any]:
        """Return B values in the stored format of the modality (`fourfold.modalities.LABELS`)."""


def in_order(labelers: dict[str, Labeler], given: tuple[str, ...]) -> list[Labeler]:
    """Return the labelers such that each finds what it needs, starting from the columns `given`.

    Raises ValueError naming the need that nobody meets (or that is met only in a circle).
    """
    done, ordered, waiting = set(given), [], dict(sorted(labelers.items()))
    while waiting:
        ready = [modality for modality, labeler in waiting.items() if done.issuperset(labeler.needs)]
        if not ready:
            missing = {modality: sorted(set(labeler.needs) - done) for modality, labeler in waiting.items()}
            given_names = ", ".join(sorted(given))
            raise ValueError(f"Labels cannot be made: {missing} are needed, {given_names} are given. Add labelers for them.")
        ordered += [waiting.pop(modality) for modality in ready]
        done.update(ready)
    return ordered
