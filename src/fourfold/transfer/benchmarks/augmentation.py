"""RandAugment, color jitter and large-scale jitter of training images; what is drawn depends on the given generator alone.

torchvision's and timm's transforms draw from global random states, and torchvision's `RandAugment` has other operations than
the recipes of MAE and 4M. So the drawing is here, and Pillow applies the operations, as in timm.
"""

# H W size of an image, S side of the model

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from fourfold.evaluation.benchmarks.views import NO_CLASS, nearest
from fourfold.transfer.benchmark_settings import MAX_MAGNITUDE, ColorJitterConfig, RandAugmentConfig

GRAY = 128  # around an image that was made smaller
MEAN_COLOR = (124, 116, 104)  # of ImageNet: behind an image that was moved
BRIGHT = 128  # `solarize_add` changes levels below this one
BICUBIC = Image.Resampling.BICUBIC  # as in the recipes of MAE and 4M; timm's own default draws bilinear or bicubic
Apply = Callable[[Image.Image, float], Image.Image]  # image, argument → image of the same size


@dataclass(frozen=True)
class Operation:
    """One operation of RandAugment."""

    argument: Callable[[float], float]  # strength, -1 to 1 → e.g. degrees; negative ones only of operations with two directions
    apply: Apply
    has_sign: bool = False  # half of the time the strength is negative


def _affine(row: Callable[[Image.Image, float], tuple[float, ...]]) -> Apply:
    """Return an operation that takes each output pixel from the point of the input that a matrix (a, b, c, d, e, f) gives."""

    def apply(image: Image.Image, value: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, row(image, value), BICUBIC, fillcolor=MEAN_COLOR)

    return apply


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Return a blend with a plain version of the image, e.g. a gray one: 1 changes nothing, 0 is the plain version."""
    return Operation(lambda strength: max(0.1, 1 + 0.9 * strength), lambda image, value: kind(image).enhance(value), True)


def _keep_bits(image: Image.Image, value: float) -> Image.Image:
    # Not ImageOps.posterize: since Pillow 13 it refuses the 0 bits of magnitude 10, which make an image black
    mask = 0xFF & ~(2 ** (8 - int(value)) - 1)
    return image.point([level & mask for level in range(256)] * len(image.getbands()))


def _add_to_dark(image: Image.Image, value: float) -> Image.Image:
    levels = [min(255, level + int(value)) if level < BRIGHT else level for level in range(256)]
    return image.point(levels * len(image.getbands()))


# The operations of timm for strings with `inc1`, whose strength grows with the magnitude, in its order
OPERATIONS: dict[str, Operation] = {
    "auto_contrast": Operation(abs, lambda image, _: ImageOps.autocontrast(image)),
    "equalize": Operation(abs, lambda image, _: ImageOps.equalize(image)),
    "invert": Operation(abs, lambda image, _: ImageOps.invert(image)),
    "rotate": Operation(  # degrees
        lambda strength: 30 * strength, lambda image, value: image.rotate(value, BICUBIC, fillcolor=MEAN_COLOR), True
    ),
    "posterize": Operation(lambda strength: 4 - int(4 * strength), _keep_bits),
    "solarize": Operation(  # levels from this one on are inverted
        lambda strength: 256 - int(256 * strength), lambda image, value: ImageOps.solarize(image, int(value))
    ),
    "solarize_add": Operation(lambda strength: int(110 * strength), _add_to_dark),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": Operation(lambda strength: 0.3 * strength, _affine(lambda _, value: (1, value, 0, 0, 1, 0)), True),
    "shear_y": Operation(lambda strength: 0.3 * strength, _affine(lambda _, value: (1, 0, 0, value, 1, 0)), True),
    "translate_x": Operation(  # as a share of the width
        lambda strength: 0.45 * strength, _affine(lambda image, value: (1, 0, value * image.width, 0, 1, 0)), True
    ),
    "translate_y": Operation(
        lambda strength: 0.45 * strength, _affine(lambda image, value: (1, 0, 0, 0, 1, value * image.height)), True
    ),
}
NAMES = tuple(OPERATIONS)


def draw_operations(config: RandAugmentConfig, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Return the operations of one image, in their order, with their strengths, -1 to 1.

    As in timm, operations are drawn with replacement, each is left out with some probability, and its magnitude is normal
    around that of the setting, cut to 0 to 10. Strength 1 is magnitude 10.
    """
    found = []
    for name in (NAMES[i] for i in rng.integers(len(NAMES), size=config.operations)):
        # All are drawn whether or not they are used, so that the numbers of one operation do not depend on the others
        is_used, noise, is_negative = rng.random() < config.probability, rng.normal(), rng.random() < 0.5
        magnitude = min(max(config.magnitude + config.magnitude_std * noise, 0), MAX_MAGNITUDE)
        if is_used:
            sign = -1 if OPERATIONS[name].has_sign and is_negative else 1
            found.append((name, sign * magnitude / MAX_MAGNITUDE))
    return found


def apply_operation(rgb_HW3: np.ndarray, name: str, strength: float) -> np.ndarray:
    """Return an image uint8 (H, W, 3) after one operation; `strength` as of `draw_operations`."""
    operation = OPERATIONS[name]
    image = Image.fromarray(np.ascontiguousarray(rgb_HW3))
    return np.asarray(operation.apply(image, operation.argument(strength)))


def rand_augmented(rgb_HW3: np.ndarray, config: RandAugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Return an image uint8 (H, W, 3) after RandAugment (Cubuk et al. 2019, arXiv 1909.13719)."""
    for name, strength in draw_operations(config, rng):
        rgb_HW3 = apply_operation(rgb_HW3, name, strength)
    return rgb_HW3


def _hue_shifted(image: Image.Image, value: float) -> Image.Image:
    hue, *others = image.convert("HSV").split()
    step = int(255 * value) % 256  # as torchvision, whose circle has 255 steps although Pillow's has 256
    shifted = hue.point([(level + step) % 256 for level in range(256)])
    return Image.merge("HSV", (shifted, *others)).convert("RGB")


# Operations of color jitter with their argument: a factor, of which 1 changes nothing, or a share of the color circle
COLORS: dict[str, Apply] = {
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "saturation": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "hue": _hue_shifted,
}
GRAY_ONLY = "gray"


def draw_colors(config: ColorJitterConfig, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Return the operations of color jitter for one image, in their order, with their arguments; see `COLORS`.

    With `config.probability` all operations that are not turned off follow each other in a random order, as in albumentations
    and torchvision. `("gray", 1.0)` comes last, with a separate probability.
    """
    # All are drawn whether or not they are used, so that one number does not depend on the settings of the others
    is_used, order = rng.random() < config.probability, rng.permutation(len(COLORS))
    strengths, is_gray = rng.uniform(-1, 1, len(COLORS)), rng.random() < config.gray
    found = []
    for name, strength in ((list(COLORS)[i], float(strengths[i])) for i in order):
        if is_used and (limit := getattr(config, name)):
            found.append((name, strength * limit + (name != "hue")))
    return [*found, (GRAY_ONLY, 1.0)] if is_gray else found


def color_jittered(rgb_HW3: np.ndarray, config: ColorJitterConfig, rng: np.random.Generator) -> np.ndarray:
    """Return an image uint8 (H, W, 3) after color jitter (Howard 2013, arXiv 1312.5402)."""
    drawn = draw_colors(config, rng)
    if not drawn:
        return rgb_HW3
    image = Image.fromarray(np.ascontiguousarray(rgb_HW3))
    for name, value in drawn:
        image = image.convert("L").convert("RGB") if name == GRAY_ONLY else COLORS[name](image, value)
    return np.asarray(image)


@dataclass(frozen=True)
class Jitter:
    """Where an image goes: it is resized to (height, width), and a square of `side` pixels from (top, left) on is seen.

    What is outside of the image is below it and right of it.
    """

    height: int
    width: int
    top: int
    left: int
    side: int

    def image(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Return the image as uint8 (side, side, 3), bicubic; gray outside."""
        resized = Image.fromarray(np.ascontiguousarray(rgb_HW3)).resize((self.width, self.height), BICUBIC)
        return self._placed(np.asarray(resized), GRAY)

    def map(self, values_HW: np.ndarray, outside: float = NO_CLASS) -> np.ndarray:
        """Return a map (side, side) in the type of `values_HW`, without interpolation; `outside` where there is no image."""
        return self._placed(nearest(values_HW, self.height, self.width), outside)

    def affine(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return where the points of an image of `size` (H, W) are seen; see `fourfold.transfer.benchmarks.parts.Part`."""
        return self.height / size[0], self.width / size[1], -float(self.top), -float(self.left)

    def _placed(self, resized: np.ndarray, outside: float) -> np.ndarray:
        seen = resized[self.top : self.top + self.side, self.left : self.left + self.side]
        placed = np.full((self.side, self.side, *resized.shape[2:]), outside, resized.dtype)
        placed[: seen.shape[0], : seen.shape[1]] = seen
        return placed


def draw_jitter(size: tuple[int, int], side: int, scales: tuple[float, float], rng: np.random.Generator) -> Jitter:
    """Return a large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177, section 3) of an image of `size` (H, W) in pixels.

    The longer side becomes `side` times a factor that is uniform in `scales`; the ratio of the sides stays. Of a larger image
    a random square is seen; a smaller one is in the corner at the top left, as in the code of MultiMAE (arXiv 2204.01678).
    """
    factor = rng.uniform(*scales) * side / max(size)
    height, width = (max(1, round(length * factor)) for length in size)
    top, left = (int(rng.integers(max(length - side, 0) + 1)) for length in (height, width))
    return Jitter(height, width, top, left, side)
