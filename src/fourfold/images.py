"""Every modality as an image that a person can read: uint8 (H, W, 3)."""

# H height, W width, h w patches, C channels, N samples

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from fourfold.metrics.dense import unit_normals
from fourfold.modalities import label
from fourfold.modalities.class_table import MAX_ID, ClassTable
from fourfold.modalities.keypoints import LIMBS

NEAR, FAR = 2.0, 10.0  # meters: the default ends of the depth colors
DEPTH_COLORS = matplotlib.colormaps["magma_r"]  # near is light, far is dark: readable without color, perceptually uniform
ANONYMOUS_CLASSES = ClassTable(names=tuple(f"class {i}" for i in range(MAX_ID + 1)))  # the colors of PASCAL VOC
IGNORED_COLOR = (128, 128, 128)  # of pixels whose class is not known
UNKNOWN_COLOR = (90, 90, 90)  # of boxes whose class is not in the class table
BOX_SCALE = 3  # boxes and joints are drawn on an image that is this much larger
LEFT_COLOR, RIGHT_COLOR, JOINT_COLOR = (213, 94, 0), (0, 114, 178), (40, 40, 40)  # of limbs, and of the joints between them


@dataclass(frozen=True)
class Drawing:
    """What drawing needs besides the value."""

    rgb: np.ndarray | None = None  # uint8 (H, W, 3): the image under boxes; None: gray
    class_table: ClassTable | None = None  # names and colors of classes
    features: np.ndarray | None = None  # (N, h, w, C): features that share their colors; None: a value has its own
    size: int = 64  # pixels per side of what has no size itself: features, vectors, palettes
    depth_range: tuple[float, float] = (NEAR, FAR)  # meters: the ends of the depth colors

    @property
    def classes(self) -> ClassTable:
        """The class table, or anonymous classes."""
        return self.class_table or ANONYMOUS_CLASSES

    @cached_property
    def directions(self) -> "FeatureBasis | None":
        """The principal directions of `features`."""
        return None if self.features is None else feature_directions(self.features)


FeatureBasis = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw(name: str, value: Any, drawing: Drawing) -> np.ndarray | None:
    """Return a label's value as an image uint8 (H, W, 3), by the kind of the label; None for text and unknown kinds."""
    painter = PAINTERS.get(label(name).kind)
    return None if painter is None else painter(value, drawing)


def depth_image(depth_HW: np.ndarray, near: float = NEAR, far: float = FAR) -> np.ndarray:
    """Return depth in meters as colors from light (near) to dark (far), on a logarithmic scale."""
    logs = np.log(np.clip(depth_HW.astype(np.float64), near, far) / near) / np.log(far / near)
    return DEPTH_COLORS(logs, bytes=True)[..., :3]


def normal_image(normal_HWC: np.ndarray) -> np.ndarray:
    """Return normals in the usual colors: red to the right, green up, blue towards the viewer."""
    return np.rint((unit_normals(normal_HWC) * (1, -1, -1) * 0.5 + 0.5) * 255).astype(np.uint8)


def class_image(classes_HW: np.ndarray, table: ClassTable) -> np.ndarray:
    """Return class ids in the colors of the class table; pixels without a label are gray."""
    image_HW3 = table.palette[classes_HW.astype(int)]
    image_HW3[table.is_ignored(classes_HW)] = IGNORED_COLOR
    return image_HW3


def box_image(rgb_HWC: np.ndarray, instances: list[dict[str, Any]], table: ClassTable) -> np.ndarray:
    """Return the image, enlarged and faded, with boxes in the colors of their classes, and the names of these."""
    image = _faded(rgb_HWC)
    pen, colors = ImageDraw.Draw(image), dict(zip(table.names, table.palette.tolist(), strict=False))
    for instance in instances:
        edges = np.array(instance["box"]) * np.tile(image.size, 2)
        x0, y0, x1, y1 = (float(edge) for edge in np.clip(edges, 0, np.tile(image.size, 2) - 1))
        color = tuple(colors.get(instance["class_name"], UNKNOWN_COLOR))
        # A predicted box may have its corners in the wrong order.
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=BOX_SCALE)
        corner = (min(x0, x1) + BOX_SCALE + 2, min(y0, y1) + BOX_SCALE)
        pen.text(corner, instance["class_name"], fill=color, stroke_width=1, stroke_fill="white")
    return np.asarray(image)


def keypoint_image(rgb_HWC: np.ndarray, instances: list[dict[str, Any]]) -> np.ndarray:
    """Return the image, enlarged and faded, with the joints of each person and lines between them; right limbs are blue."""
    image = _faded(rgb_HWC)
    pen = ImageDraw.Draw(image)
    for instance in instances:
        at = {joint: tuple(np.multiply(point, image.size).tolist()) for joint, point in instance["points"].items()}
        for start, end in LIMBS:
            if start in at and end in at:
                color = RIGHT_COLOR if "right" in start + end and "left" not in start + end else LEFT_COLOR
                pen.line((*at[start], *at[end]), fill=color, width=BOX_SCALE)
        for x, y in at.values():
            pen.ellipse((x - BOX_SCALE, y - BOX_SCALE, x + BOX_SCALE, y + BOX_SCALE), fill=JOINT_COLOR)
    return np.asarray(image)


def overlay_image(values: Mapping[str, Any], drawing: Drawing) -> np.ndarray:
    """Return an image with classes and boxes drawn over it, in its size, and depth below it: uint8 (H or 2 H, W, 3).

    Args:
        values: of the labels depth (NaN where it is not known), semseg (255 for none) and det; each may be absent.
        drawing: the image, the classes and the range of the depth colors.
    """
    assert drawing.rgb is not None
    shown_HW3 = drawing.rgb.copy()
    if "semseg" in values:
        is_class_HW = values["semseg"] != MAX_ID
        mixed_HW3 = (shown_HW3.astype(np.uint16) + class_image(values["semseg"], drawing.classes)) // 2
        shown_HW3[is_class_HW] = mixed_HW3[is_class_HW]
    if "det" in values:
        shown_HW3 = _with_boxes(Image.fromarray(shown_HW3), values["det"]["instances"], drawing.classes)
    if "depth" not in values:
        return shown_HW3
    near, far = drawing.depth_range
    is_known_HW1 = np.isfinite(values["depth"])[..., None]
    depth_HW3 = np.where(is_known_HW1, depth_image(np.nan_to_num(values["depth"], nan=far), near, far), 0)
    return np.concatenate([shown_HW3, depth_HW3.astype(np.uint8)])


def _with_boxes(image: Image.Image, instances: list[dict[str, Any]], table: ClassTable) -> np.ndarray:
    """Return the image with boxes, and with the names of their classes, in the size of the image."""
    pen, colors = ImageDraw.Draw(image), dict(zip(table.names, table.palette.tolist(), strict=False))
    line = max(1, min(image.size) // 200)
    for instance in instances:
        edges = np.array(instance["box"]) * np.tile(image.size, 2)
        x0, y0, x1, y1 = (float(edge) for edge in np.clip(edges, 0, np.tile(image.size, 2) - 1))
        color = tuple(colors.get(instance["class_name"], (255, 255, 255)))
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=line)
        pen.text((min(x0, x1) + line + 1, min(y0, y1) + line), instance["class_name"], fill=color)
    return np.asarray(image)


def edge_image(edges_HW: np.ndarray) -> np.ndarray:
    """Return edges as dark lines on white."""
    return (255 - edges_HW)[..., None].repeat(3, 2)


def palette_image(palettes: dict[str, list[list[int]]], size: int) -> np.ndarray:
    """Return the largest of some palettes as stripes from left to right, `size` pixels per side; gray without any."""
    colors = palettes[max(palettes, key=int)] if palettes else [[128, 128, 128]]
    stripe_W = np.arange(size) * len(colors) // size
    return np.broadcast_to(np.array(colors, np.uint8)[stripe_W], (size, size, 3)).copy()


def vector_image(vector_C: np.ndarray, size: int) -> np.ndarray:
    """Return a vector as gray squares in rows, its minimum black and its maximum white, `size` pixels per side."""
    rows = max(1, int(len(vector_C) ** 0.5))
    squares = np.full(rows * -(-len(vector_C) // rows), vector_C.min(), np.float64)
    squares[: len(vector_C)] = vector_C
    gray = np.rint(255 * (squares - squares.min()) / max(np.ptp(squares), 1e-12)).astype(np.uint8).reshape(rows, -1)
    return _enlarged(Image.fromarray(gray).convert("RGB"), size)


def feature_directions(features_NhwC: np.ndarray) -> FeatureBasis:
    """Return mean (C), three principal directions (C, 3) and their standard deviations (3): a basis for colors."""
    rows = features_NhwC.reshape(-1, features_NhwC.shape[-1]).astype(np.float64)
    mean = rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    basis = np.zeros((rows.shape[1], 3))
    basis[:, : min(3, len(directions))] = directions[:3].T
    basis *= np.where(basis[np.abs(basis).argmax(axis=0), np.arange(3)] < 0, -1, 1)  # a sign that does not depend on LAPACK
    return mean, basis, np.maximum(((rows - mean) @ basis).std(axis=0), 1e-9)


def feature_image(features_hwC: np.ndarray, directions: FeatureBasis, size: int) -> np.ndarray:
    """Return features as the colors of their three principal components, enlarged to `size` pixels per side."""
    mean, basis, deviation = directions
    shown = np.clip((features_hwC.astype(np.float64) - mean) @ basis / deviation / 6 + 0.5, 0, 1)
    return _enlarged(Image.fromarray(np.rint(shown * 255).astype(np.uint8)), size)


def png(image: np.ndarray | Image.Image, compress_level: int = 6) -> bytes:
    """Return an image as PNG; equal images have equal bytes.

    `compress_level`: 0 to 9; level 6 takes several times as long as level 1 for a few percent.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def data_url(image: np.ndarray) -> str:
    """Return an image as a URL that contains it, for a page without other files."""
    return png_url(png(image))


def png_url(content: bytes) -> str:
    """Return the bytes of a PNG as such a URL."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _enlarged(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))


def _features(value: np.ndarray, drawing: Drawing) -> np.ndarray:
    directions = drawing.directions
    if directions is None or len(directions[0]) != value.shape[-1]:  # those of another feature label
        directions = feature_directions(value[None])
    return feature_image(value, directions, drawing.size)


def _faded(rgb_HWC: np.ndarray) -> Image.Image:
    """Return the ground of a drawing: `BOX_SCALE` times as large, and pale."""
    faded_HWC = np.rint(rgb_HWC * 0.45 + 255 * 0.45).astype(np.uint8)
    return Image.fromarray(faded_HWC.repeat(BOX_SCALE, 0).repeat(BOX_SCALE, 1))


def _ground(drawing: Drawing) -> np.ndarray:
    return np.full((64, 64, 3), 128, np.uint8) if drawing.rgb is None else drawing.rgb


PAINTERS: dict[str, Callable[[Any, Drawing], np.ndarray]] = {  # by the kind of a label
    "image": lambda value, drawing: value,
    "depth": lambda value, drawing: depth_image(value, *drawing.depth_range),
    "normals": lambda value, drawing: normal_image(value),
    "classes": lambda value, drawing: class_image(value, drawing.classes),
    "features": _features,
    "boxes": lambda value, drawing: box_image(_ground(drawing), value["instances"], drawing.classes),
    "keypoints": lambda value, drawing: keypoint_image(_ground(drawing), value["instances"]),
    "vector": lambda value, drawing: vector_image(value, drawing.size),
    "edges": lambda value, drawing: edge_image(value),
    "palette": lambda value, drawing: palette_image(value, drawing.size),
}
