"""Real photographs for tests: crops of the ones that scikit-image and scikit-learn carry, drawn with a seed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

# The folders of packages that are not imported, since that takes seconds.
SKIMAGE, SKLEARN = (Path(find_spec(name).origin).parent for name in ("skimage", "sklearn"))
PICTURES = {  # what a photograph shows, and the file in its package
    "a cat": SKIMAGE / "data" / "chelsea.png",
    "an astronaut": SKIMAGE / "data" / "astronaut.png",
    "a cup of coffee": SKIMAGE / "data" / "coffee.png",
    "a rocket": SKIMAGE / "data" / "rocket.jpg",
    "a temple in China": SKLEARN / "datasets/images" / "china.jpg",
    "a flower": SKLEARN / "datasets/images" / "flower.jpg",
}


def write_photographs(folder: Path, count: int, side: int = 64, captioned: float = 1.0, seed: int = 0) -> list[Path]:
    """Write square crops as JPEG files in a folder for each subject, and captions beside a share of them; return the paths."""
    rng, paths = np.random.default_rng(seed), []
    pictures = {title: np.asarray(Image.open(path).convert("RGB")) for title, path in PICTURES.items()}
    for index in range(count):
        title, picture_HW3 = list(pictures.items())[index % len(pictures)]
        size = int(rng.integers(side, min(picture_HW3.shape[:2])))
        top, left = (int(rng.integers(length - size)) for length in picture_HW3.shape[:2])
        crop = Image.fromarray(picture_HW3[top : top + size, left : left + size]).resize((side, side))
        path = folder / title.split()[-1].lower() / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, quality=92)
        where = "left" if left < (picture_HW3.shape[1] - size) / 2 else "right"
        if rng.random() < captioned:
            path.with_suffix(".txt").write_text(f"a photograph of {title}, seen from the {where}, number {index}")
        paths.append(path)
    return paths
