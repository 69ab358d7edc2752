"""Initial token embeddings that know which tokens look alike.

With random embeddings, the model must see each of hundreds of tokens of a modality often before it knows that two of them mean
nearly the same, e.g. the same color in another shade. A tokenizer knows: such tokens have neighboring codes. A random
projection of the codes keeps their angles (Johnson & Lindenstrauss 1984), so embeddings that contain it start with that
knowledge. Not part of 4M (docs/decisions/0011).
"""

# K codes of a modality, C width of a code, D width of the model

import torch

from fourfold.modalities import base_name
from fourfold.model.fourm import FourM
from fourfold.seeds import torch_generator
from fourfold.tokenizers.tokenizer_set import TokenizerSet


@torch.no_grad()
def add_codes(model: FourM, tokenizers: TokenizerSet, share: float, seed: int) -> None:
    """Replace a share of the variance of initial token embeddings by projected codes, in place.

    Modalities whose tokens share one codebook change, on both sides of the model. Texts and global vectors (one codebook for
    each token) keep their random embeddings. The scale of the embeddings stays.

    Args:
        model: an untrained model.
        tokenizers: those that made the tokens.
        share: of the variance, 0 to 1; 0 changes nothing.
        seed: the projections are a pure function of it, the modality and the side.
    """
    if share == 0:
        return
    std = model.config.embedding_std
    for side, table in (("input", model.input_tokens), ("target", model.target_tokens)):
        for name, block_KD in zip(model.config.names, table.per_modality(), strict=True):
            tokenizer = tokenizers.visual.get(base_name(name).removeprefix("tok_")) if name.startswith("tok_") else None
            codes_KC = None if tokenizer is None else tokenizer.shared_codes_KD
            if codes_KC is None:
                continue
            centered_KC = codes_KC.to(block_KD.device) - codes_KC.mean(0).to(block_KD.device)
            generator = torch_generator(seed, "code embeddings", side, name)
            projection_CD = torch.randn(codes_KC.shape[1], block_KD.shape[1], generator=generator)
            projected_KD = centered_KC @ projection_CD.to(block_KD.device)
            projected_KD *= std / projected_KD.square().mean().sqrt()
            block_KD.copy_((1 - share) ** 0.5 * block_KD + share**0.5 * projected_KD)
