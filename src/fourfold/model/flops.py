"""Arithmetic of a batch: matrix products of the tokens that exist, as model FLOP utilization counts it.

MFU: PaLM (Chowdhery et al., 2022, arXiv 2204.02311), appendix B. A multiply-add counts as 2 FLOP.
"""

# N visible tokens, M targets, of a batch; D width

import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.embeddings import STEM_WIDTH

BACKWARD = 2  # times the forward pass: one product for the gradient of the inputs, one for that of the weights


def forward_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP of one forward pass including the losses. Use a batch on the CPU: counting waits for the device."""
    n, m = float(batch.input_keep_BN.sum()), float(batch.target_keep_BM.sum())
    d, feed_forward = config.dim, (3 if config.gated_mlp else 2) * config.dim * config.mlp_width
    encoder = config.encoder_depth * n * (4 * d * d + feed_forward)
    decoder = config.decoder_depth * (m * (6 * d * d + feed_forward) + n * 2 * d * d)
    products = 2 * (encoder + n * d * d + decoder + _patches(config, batch) + _heads(config, batch))
    return products + attention_flops(config, batch)


def attention_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP of attention scores and weighted sums in one forward pass, the part that is quadratic in the budget.

    All pairs of a sample's tokens count, also those that a mask hides.
    """
    inputs_B, targets_B = batch.input_keep_BN.sum(1).double(), batch.target_keep_BM.sum(1).double()
    encoder = config.encoder_depth * float((inputs_B**2).sum())
    return 2 * 2 * config.dim * (encoder + config.decoder_depth * float((targets_B**2 + targets_B * inputs_B).sum()))


def training_flops(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the FLOP of forward and backward. Recomputation to save memory does not count (model FLOP)."""
    return (1 + BACKWARD) * forward_flops(config, batch)


def _heads(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the multiply-adds of all logits."""
    modality = batch.target_modality_BM[batch.target_keep_BM]
    vocabulary_E = torch.tensor([entry.vocabulary_size for entry in config.modalities], device=modality.device)
    return config.dim * float(vocabulary_E[modality].sum())


def _patches(config: ModelConfig, batch: MaskedBatch) -> float:
    """Return the multiply-adds of all patch embeddings."""
    indices = [index for index, entry in enumerate(config.modalities) if entry.kind == "pixels"]
    patches = sum(float(batch.input_modality_BN.eq(index).sum()) for index in indices)
    return patches * _per_patch(config)


def _per_patch(config: ModelConfig) -> int:
    size = config.patch_size
    if config.patch_stem == "linear":
        return 3 * size**2 * config.dim
    # See PatchEmbedding: 3 × 3 convolution of stride 2, 2 × 2 blocks merged, projection
    convolution, merge = (size // 2) ** 2 * 27 * STEM_WIDTH, (size // 4) ** 2 * 4 * STEM_WIDTH * 2 * STEM_WIDTH
    return convolution + merge + (size // 4) ** 2 * 2 * STEM_WIDTH * config.dim
