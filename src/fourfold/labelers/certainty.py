"""How sure a segmentation is of its classes, from the scores of all classes."""

# K classes, H height, W width

import torch
from torch import Tensor

ROWS = 32  # of pixels that are done at once: 21 classes of 513 columns fit a cache, which takes a third of the time


def class_certainty(scores_KHW: Tensor, are_logits: bool) -> float:
    """Return the mean over all pixels of the probability of the most probable class, 0 to 1.

    Args:
        scores_KHW: of each class.
        are_logits: whether a softmax makes them probabilities; otherwise they are shares that need not add up to 1, as those
            that a set of masks gives to each class.
    """
    total = 0.0
    for strip_KhW in scores_KHW.split(ROWS, 1):
        strip_KhW = strip_KhW.float().contiguous()
        if are_logits:
            highest_hW = torch.softmax(strip_KhW, 0).amax(0)
        else:
            highest_hW = strip_KhW.amax(0) / strip_KhW.sum(0).clamp_min(torch.finfo(torch.float32).tiny)
        total += float(highest_hW.sum(dtype=torch.float64))
    return total / scores_KHW[0].numel()
