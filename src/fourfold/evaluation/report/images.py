"""Every modality as a picture that a person can read: uint8 (H, W, 3)."""

# H height, W width, h, w patches, C channels, N samples

import base64
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourfold.metrics.dense import unit_normals
from fourfold.scenes.world.vocabulary import CLASS_NAMES

# near to far, light to dark: reads the same in gray
DEPTH_STOPS = np.array([(253, 246, 211), (250, 196, 116), (226, 113, 92), (148, 60, 110), (69, 41, 96), (18, 18, 48)], float)
CLASS_COLORS = {
    "sky": (206, 223, 238),
    "ground": (176, 168, 154),
    "sphere": (0, 114, 178),
    "box": (213, 94, 0),
    "cylinder": (0, 158, 115),
    "cone": (240, 205, 40),
}
BOX_SCALE = 3  # boxes are drawn on a picture this much larger


def depth_picture(depth_HW: np.ndarray, near: float, far: float) -> np.ndarray:
    """Return metric depth as colors from light (near) to dark (far), on a logarithmic scale of meters."""
    logs = np.log(np.clip(depth_HW.astype(np.float64), near, far) / near) / np.log(far / near)
    place = logs * (len(DEPTH_STOPS) - 1)
    low = np.minimum(place.astype(int), len(DEPTH_STOPS) - 2)
    share = (place - low)[..., None]
    return np.rint(DEPTH_STOPS[low] * (1 - share) + DEPTH_STOPS[low + 1] * share).astype(np.uint8)


def normal_picture(normal_HWC: np.ndarray) -> np.ndarray:
    """Return normals in the usual colors: red to the right, green up, blue towards the viewer."""
    return np.rint((unit_normals(normal_HWC) * (1, -1, -1) * 0.5 + 0.5) * 255).astype(np.uint8)


def class_picture(classes_HW: np.ndarray) -> np.ndarray:
    """Return class ids in colors that color-blind readers tell apart (Okabe and Ito 2008)."""
    palette = np.array([CLASS_COLORS[name] for name in CLASS_NAMES], np.uint8)
    return palette[np.minimum(classes_HW.astype(int), len(palette) - 1)]


def box_picture(rgb_HWC: np.ndarray, instances: list[dict[str, Any]]) -> np.ndarray:
    """Return the image, enlarged and faded, with boxes in the colors of their classes."""
    faded = np.rint(rgb_HWC * 0.45 + 255 * 0.45).astype(np.uint8)
    picture = Image.fromarray(faded.repeat(BOX_SCALE, 0).repeat(BOX_SCALE, 1))
    pen = ImageDraw.Draw(picture)
    for instance in instances:
        edges = np.array(instance["box"]) * np.tile(picture.size, 2)
        x0, y0, x1, y1 = (float(edge) for edge in np.clip(edges, 0, np.tile(picture.size, 2) - 1))
        color = CLASS_COLORS.get(instance["class_name"], (90, 90, 90))
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=BOX_SCALE)
    return np.asarray(picture)


def edge_picture(edges_HW: np.ndarray) -> np.ndarray:
    """Return edges as dark lines on white."""
    return (255 - edges_HW)[..., None].repeat(3, 2)


def palette_picture(palettes: dict[str, list[list[int]]], size: int) -> np.ndarray:
    """Return the largest of some palettes as stripes from left to right, `size` pixels a side; gray where there is none."""
    colors = palettes[max(palettes, key=int)] if palettes else [[128, 128, 128]]
    stripe_W = np.arange(size) * len(colors) // size
    return np.broadcast_to(np.array(colors, np.uint8)[stripe_W], (size, size, 3)).copy()


def vector_picture(vector_C: np.ndarray, size: int) -> np.ndarray:
    """Return a vector as gray fields in rows, its smallest value black and its largest white, `size` pixels a side."""
    rows = max(1, int(len(vector_C) ** 0.5))
    fields = np.full(rows * -(-len(vector_C) // rows), vector_C.min(), np.float64)
    fields[: len(vector_C)] = vector_C
    gray = np.rint(255 * (fields - fields.min()) / max(np.ptp(fields), 1e-12)).astype(np.uint8).reshape(rows, -1)
    small = Image.fromarray(gray).convert("RGB")
    return np.asarray(small.resize((size, size), Image.Resampling.NEAREST))


def feature_directions(features_NhwC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean (C), three principal directions (C, 3) and their spread (3): a basis to show features in."""
    rows = features_NhwC.reshape(-1, features_NhwC.shape[-1]).astype(np.float64)
    mean = rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    basis = np.zeros((rows.shape[1], 3))
    basis[:, : min(3, len(directions))] = directions[:3].T
    basis *= np.where(basis[np.abs(basis).argmax(axis=0), np.arange(3)] < 0, -1, 1)  # a sign that does not depend on LAPACK
    return mean, basis, np.maximum(((rows - mean) @ basis).std(axis=0), 1e-9)


def feature_picture(features_hwC: np.ndarray, directions: tuple[np.ndarray, np.ndarray, np.ndarray], size: int) -> np.ndarray:
    """Return features as the colors of their three principal components, enlarged to `size` pixels."""
    mean, basis, spread = directions
    shown = np.clip((features_hwC.astype(np.float64) - mean) @ basis / spread / 6 + 0.5, 0, 1)
    small = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.NEAREST))


def png(picture: np.ndarray | Image.Image) -> bytes:
    """Return a picture as PNG bytes, always the same for the same picture."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def data_url(picture: np.ndarray) -> str:
    """Return a picture as a URL that holds it, for a page without other files."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()
