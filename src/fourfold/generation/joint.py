"""Several grids of tokens in one pass of the decoder.

Targets attend within their modality only (4M, arXiv 2312.06647, §2.1), so grids that are predicted together are the same as
one after the other, and the decoder runs once.
"""

# B batch, L positions of a grid, M positions of all grids, V vocabulary

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fourfold.generation.conditions import MISSING, Conditions
from fourfold.generation.config import TargetConfig
from fourfold.generation.sampling import sample
from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import Encoding, FourM


@dataclass(frozen=True)
class JointGrid:
    """A grid that is predicted in one step.

    Attributes:
        name: of the modality.
        tokens_BL: ids, MISSING where a token is to be predicted; samples may lack different numbers.
        settings: temperature and filters.
        uniform_BL: for each position a number in [0, 1), which decides the sample.
    """

    name: str
    tokens_BL: Tensor
    settings: TargetConfig
    uniform_BL: Tensor


def allows_joint_grids(config: ModelConfig) -> bool:
    """Return whether the targets of one modality cannot see those of another one, nor only those before them."""
    return config.separate_targets and not config.causal_targets


def predict_jointly(model: FourM, batch: MaskedBatch, encoding: Encoding, grids: Sequence[JointGrid]) -> Conditions:
    """Return the tokens (B, L) of each grid: MISSING ones predicted, the others as they are.

    Args:
        model: one that `allows_joint_grids`.
        batch: the conditions, without targets.
        encoding: of this batch.
        grids: what is predicted.
    """
    if not grids:
        return {}
    asked = [grid.tokens_BL == MISSING for grid in grids]
    hidden_BMD = model.decode(_with_grids(batch, model.config, grids, asked), encoding)
    found = {}
    for grid, asked_BL, hidden_BLD in zip(grids, asked, hidden_BMD.split([one.shape[1] for one in asked], dim=1), strict=True):
        settings = grid.settings
        logits_BLV = model.logits(hidden_BLD, grid.name)
        ids_BL = sample(logits_BLV, grid.uniform_BL, settings.temperature, settings.top_k, settings.top_p)
        found[grid.name] = torch.where(asked_BL, ids_BL, grid.tokens_BL)
    return found


def _with_grids(batch: MaskedBatch, config: ModelConfig, grids: Sequence[JointGrid], asked: Sequence[Tensor]) -> MaskedBatch:
    """Return the batch with the positions that each grid asks for as targets; the slots of others are empty."""
    modality = [torch.where(one, config.index(grid.name), PADDING_MODALITY) for grid, one in zip(grids, asked, strict=True)]
    position = [torch.arange(one.shape[1], device=one.device).expand_as(one) * one for one in asked]
    modality_BM = torch.cat(modality, dim=1)
    zeros = torch.zeros_like(modality_BM)
    return dataclasses.replace(
        batch,
        target_modality_BM=modality_BM,
        target_position_BM=torch.cat(position, dim=1),
        target_input_BM=zeros,
        target_id_BM=zeros,
    )
