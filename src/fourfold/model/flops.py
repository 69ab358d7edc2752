"""How much arithmetic a batch is: matrix products of the tokens that exist, as MFU counts it (PaLM, arXiv 2204.02311, B)."""

# N visible tokens, M targets, of a batch; D width

import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig

BACKWARD = 2  # times the forward pass: one product for the inputs, one for the weights


def forward_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP (a multiply-add is 2) of one forward pass with its losses; a batch on the CPU is counted at once."""
    n, m = float(batch.input_keep_BN.sum()), float(batch.target_keep_BM.sum())
    d, feed_forward = config.dim, (3 if config.gated_mlp else 2) * config.dim * config.mlp_width
    encoder = config.encoder_depth * n * (4 * d * d + feed_forward)
    decoder = config.decoder_depth * (m * (6 * d * d + feed_forward) + n * 2 * d * d)
    products = 2 * (encoder + n * d * d + decoder + _patches(config, batch) + _heads(config, batch))
    return products + attention_flops(config, batch)


def attention_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP of scores and weighted sums in one forward pass: all that grows with the square of the budget.

    It is counted as it has to be computed for the mask-free case: all pairs of a sample's tokens that exist.
    """
    inputs_B, targets_B = batch.input_keep_BN.sum(1).double(), batch.target_keep_BM.sum(1).double()
    encoder = config.encoder_depth * float((inputs_B**2).sum())
    return 2 * 2 * config.dim * (encoder + config.decoder_depth * float((targets_B**2 + targets_B * inputs_B).sum()))


def training_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP of forward and backward; what is computed again to save memory does not count (model FLOP)."""
    return (1 + BACKWARD) * forward_flops(config, batch)


def _heads(config: ModelConfig, batch: MaskedBatch) -> float:
    modality = batch.target_modality_BM[batch.target_keep_BM]
    vocabulary_E = torch.tensor([entry.vocabulary_size for entry in config.modalities], device=modality.device)
    return config.dim * float(vocabulary_E[modality].sum())


def _patches(config: ModelConfig, batch: MaskedBatch) -> float:
    indices = [index for index, entry in enumerate(config.modalities) if entry.kind == "pixels"]
    patches = sum(float(batch.input_modality_BN.eq(index).sum()) for index in indices)
    return patches * 3 * config.patch_size**2 * config.dim
