"""Pretraining from the weights of another model, e.g. a released one (4M-21 starts from 4M-7, arXiv 2406.09406 §3).

Blocks, norms and all modalities that both models have are copied. Modalities that the source lacks keep their fresh
embeddings.
"""

# E modalities, V rows of all vocabularies, L rows of learned positions, D width

import hashlib
import logging
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fourfold.modalities import base_name
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.embeddings import offsets
from fourfold.model.files import CONFIG_FILE, load_model, state
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import load_released

logger = logging.getLogger(__name__)
# Settings that change neither shapes nor results of a model, or only its initial weights
FREE = ("attention", "recompute_blocks", "embedding_std", "tied_heads", "shared_modality_vectors")
TABLES = ("input_tokens.weight_VD", "target_tokens.weight_VD", "heads.weight_VD")
VECTORS = ("place.modality_ED", "place.of_targets_ED")
POSITIONS = ("place.learned.input_LD", "place.learned.target_LD")


def load_source(path: Path) -> FourM:
    """Return the model of an any-to-any folder, a model folder, or a released file or hub folder.

    Raises:
        ValueError: there is none.
    """
    for folder in (path, path / "model"):
        if (folder / CONFIG_FILE).is_file():
            return load_model(folder)
    return load_released(path)


def digest_of(model: FourM) -> str:
    """Return the SHA-256 of a model's weights, for fingerprints."""
    return hashlib.sha256(safetensors.torch.save(state(model))).hexdigest()


@torch.no_grad()
def copy_weights(source: FourM, model: FourM) -> list[str]:
    """Copy all that both models have into `model`; return the names of modalities that keep fresh embeddings.

    Raises:
        ValueError: the architectures differ, or no modality is common.
    """
    _check_architecture(source.config, model.config)
    theirs, ours = source.state_dict(), model.state_dict()
    if "heads.weight_VD" in ours:
        theirs.setdefault("heads.weight_VD", theirs["target_tokens.weight_VD"])
    if "place.of_targets_ED" in ours:
        theirs.setdefault("place.of_targets_ED", theirs["place.modality_ED"])
    pairs = _pairs(source.config, model.config)
    if not pairs:
        raise ValueError(
            f"The model to start from has {', '.join(source.config.names)}, of which this run has none. Choose another model."
        )
    of_modalities = {*TABLES, *VECTORS, *POSITIONS}
    for name, tensor in ours.items():
        if name not in of_modalities and name in theirs and theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
    for kind, sizes in ((TABLES, _vocabulary), (VECTORS, _one), (POSITIONS, _learned)):
        for name in kind:
            if name in ours and name in theirs:
                starts = [offsets([sizes(m) for m in config.modalities]) for config in (source.config, model.config)]
                _copy_rows(theirs[name], ours[name], starts, [(a, b, sizes(source.config.modalities[a])) for a, b in pairs])
    fresh = [name for index, name in enumerate(model.config.names) if index not in {ours for _, ours in pairs}]
    logger.info("Starting from other weights. Modalities with fresh embeddings: %s.", ", ".join(fresh) or "none")
    return fresh


def _copy_rows(theirs: Tensor, ours: Tensor, starts: list[list[int]], rows: list[tuple[int, int, int]]) -> None:
    for source, target, size in rows:
        first, second = starts[0][source], starts[1][target]
        ours[second : second + size].copy_(theirs[first : first + size])


def _pairs(source: ModelConfig, model: ModelConfig) -> list[tuple[int, int]]:
    """Return (index in the source, index here) of modalities with the same name, apart from a resolution, and shapes."""
    found = []
    for index, modality in enumerate(model.modalities):
        names = [name for name in source.names if name == modality.name]
        names += [name for name in source.names if base_name(name) == base_name(modality.name) and "@" not in modality.name]
        if names and _shape(source.modality(names[0])) == _shape(modality):
            found.append((source.index(names[0]), index))
        elif names:
            theirs = _shape(source.modality(names[0]))
            raise ValueError(
                f"{modality.name!r} is {_shape(modality)} (kind, vocabulary, learned positions, width) in this run; the model "
                f"to start from has {theirs}. Use its tokenizers, or leave the modality out."
            )
    return found


def _shape(modality: ModalityConfig) -> tuple[str, int, int, int]:
    return modality.kind, modality.vocabulary_size, _learned(modality), modality.vector_width or 0


def _check_architecture(source: ModelConfig, model: ModelConfig) -> None:
    names = [name for name in ArchitectureConfig.model_fields if name not in FREE]
    wrong = [name for name in names if getattr(source, name) != getattr(model, name)]
    for name in ("tied_heads", "shared_modality_vectors"):  # tied weights cannot hold two different ones
        wrong += [name] if getattr(model, name) and not getattr(source, name) else []
    if wrong:
        settings = ", ".join(f"{name}: {getattr(source, name)}" for name in wrong)
        raise ValueError(f"The model to start from needs other settings of pretraining.model. Set {settings}.")


def _vocabulary(modality: ModalityConfig) -> int:
    return modality.vocabulary_size


def _one(modality: ModalityConfig) -> int:
    return 1


def _learned(modality: ModalityConfig) -> int:
    return modality.num_positions if modality.learned_positions else 0
