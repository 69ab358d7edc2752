"""Mixup (Zhang et al. 2018, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899) of classification tasks.

One draw for each batch, and each image is mixed with the one at the mirrored place in the batch, as timm does. The loss is
linear in the target, so that of a mixed target is the mean of the losses of both classes, weighted with their shares.
"""

# B images of a batch

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fourfold.transfer.learners import class_loss
from fourfold.transfer.recipes import Recipe
from fourfold.transfer.tasks import Examples


@dataclass(frozen=True)
class Mixture:
    """Mixed images uint8 (B, H, W, 3), the images that each was mixed with, and the share of the first one."""

    rgb: np.ndarray
    partner_B: np.ndarray
    share: float


def mix(rgb: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> Mixture:
    """Return mixed images of uint8 (B, H, W, 3); the recipe must have `mixup` or `cutmix`."""
    partner_B = np.arange(len(rgb))[::-1]
    is_cut = bool(recipe.cutmix) and (not recipe.mixup or rng.random() < 0.5)
    alpha = recipe.cutmix if is_cut else recipe.mixup
    share = float(rng.beta(alpha, alpha))
    if not is_cut:
        # Rounded, since all networks take bytes: at most half a level away from the blend of floats
        blended = share * rgb.astype(np.float32) + (1 - share) * rgb[partner_B].astype(np.float32)
        return Mixture(np.rint(blended).astype(np.uint8), partner_B, share)
    _, height, width, _ = rgb.shape
    top, bottom, left, right = rectangle(height, width, 1 - share, rng)
    pasted = rgb.copy()
    pasted[:, top:bottom, left:right] = rgb[partner_B, top:bottom, left:right]
    # The part outside of the image is cut off, so the share is that of the pixels
    return Mixture(pasted, partner_B, 1 - (bottom - top) * (right - left) / (height * width))


def rectangle(height: int, width: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a rectangle of the image's shape and a share of its area, around a random pixel."""
    rows, columns = int(height * area**0.5), int(width * area**0.5)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    limits = ((y - rows // 2, y + rows // 2, height), (x - columns // 2, x + columns // 2, width))
    (top, bottom), (left, right) = ((max(low, 0), min(high, size)) for low, high, size in limits)
    return top, bottom, left, right


def mixed_class_loss(
    logits: Callable[[np.ndarray], dict[str, Tensor]], examples: Examples, recipe: Recipe, rng: np.random.Generator
) -> Tensor:
    """Return the loss of a network on mixed images.

    Args:
        logits: images uint8 (B, H, W, 3) → (B, K) by attribute.
        examples: of a classification task.
        recipe: with `mixup` or `cutmix`, and `label_smoothing`.
        rng: of this step.
    """
    mixture = mix(examples.rgb, recipe, rng)
    found = logits(mixture.rgb)
    own = class_loss(found, examples, recipe.label_smoothing)
    other = class_loss(found, examples.subset(mixture.partner_B), recipe.label_smoothing)
    return mixture.share * own + (1 - mixture.share) * other


def loss_of(learner: Any, examples: Examples, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Return the loss of a learner, with the label smoothing and the mixing of a recipe where the task has classes."""
    if examples.classes and recipe.mixes:
        return mixed_class_loss(learner.logits, examples, recipe, rng)
    if examples.classes and recipe.label_smoothing:
        return class_loss(learner.logits(examples.rgb), examples, recipe.label_smoothing)
    return learner.loss(examples)
