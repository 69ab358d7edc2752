"""How sure a segmentation is of its classes, from the scores of all classes."""

# K classes, H height, W width

import torch
from torch import Tensor


def class_certainty(scores_KHW: Tensor, are_logits: bool) -> float:
    """Return the mean over all pixels of the probability of the most probable class, 0 to 1.

    Args:
        scores_KHW: of each class.
        are_logits: whether a softmax makes them probabilities; otherwise they are shares that need not add up to 1, as those
            that a set of masks gives to each class.
    """
    scores_KHW = scores_KHW.float()
    if are_logits:
        return float(torch.softmax(scores_KHW, 0).amax(0).mean())
    total_HW = scores_KHW.sum(0).clamp_min(torch.finfo(torch.float32).tiny)
    return float((scores_KHW.amax(0) / total_HW).mean())
