"""Labelers of kind `by_source`: each of several sources has its own labeler of a modality, or none.

depth: {kind: by_source, of: {mine: {kind: precomputed, path: depth}, crawl: {kind: transformers, model: X}, other: null}}
"""

from fourfold.labelers.by_source.labelers import LABELERS_BY_SOURCE
from fourfold.labelers.registry import register as register_labeler

__all__ = ["LABELERS_BY_SOURCE", "register"]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in LABELERS_BY_SOURCE:
        register_labeler(labeler)
