"""Import and use a set in the layout of the released models, with random weights at the size of 4M-21 B: seconds and memory.

    OMP_NUM_THREADS=1 python benchmarks/released.py                    # about 8 GB in a temporary folder
    OMP_NUM_THREADS=1 python benchmarks/released.py --folder released  # an existing set, also the real one; or make it there

The transformer has the modalities and vocabularies of 4M-21; tokenizers are there of each kind (diffusion decoders of
images, depth, normals and edges, segmentation, CLIP features, global DINOv2 features). Peak memory is that of the process that
loads and predicts, with all libraries. Prints a table, then one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

sys.path.insert(0, str(Path(__file__).parents[1]))
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.seeds import numpy_generator

TOKENS = 32  # of a caption
SHORT = GenerationConfig(sequences=TargetConfig(max_tokens=TOKENS))
CALLS = {  # what is predicted → condition, target
    "image → segmentation": ("rgb", "semseg"),
    "image → CLIP features": ("rgb", "clip"),
    "image → global DINOv2 features": ("rgb", "dinov2_global"),
    "image → depth, 25 diffusion steps": ("rgb", "depth"),
    f"image → caption, {TOKENS} tokens": ("rgb", "caption"),
    "caption → image, 25 diffusion steps": ("caption", "rgb"),
}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Return seconds and peak megabytes so far, by what was done: load, predict, import, load the import."""
    rows: dict[str, dict[str, float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows[name] = row = {"seconds": round(time.perf_counter() - began, 2), "peak_megabytes": round(peak)}
        print(f"{name:38}{row['seconds']:9.2f}{row['peak_megabytes']:9.0f}", flush=True)
        return found

    print(f"{'':38}{'seconds':>9}{'peak MB':>9}", flush=True)
    model = timed("load the released files", lambda: AnyToAny.from_released(folder))
    side = model.image_side("rgb")
    image = numpy_generator(0, "benchmark").integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    given = {"rgb": image, "caption": ["a man rides the dog"]}
    for name, (source, target) in CALLS.items():
        timed(name, partial(model.predict, {source: given[source]}, [target], preset=SHORT))
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        timed("import: write our folder", partial(model.save, Path(parent) / "ours"))
        digest = model.digest()
        del model  # two of this size need 22 GB
        assert timed("load our folder", partial(AnyToAny.load, Path(parent) / "ours")).digest() == digest
    return rows


def main() -> None:
    """Make the set in a separate process, so that its memory does not count; measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="the set; it is made if it does not exist, and kept")
    parser.add_argument("--tiny", action="store_true", help="a set of a few megabytes: checks the script")
    parser.add_argument("--make", action="store_true", help="make the set only")
    options = parser.parse_args()
    if options.make:
        from tests.support.released_set import make_released_set, released_size, tiny

        make_released_set(options.folder, tiny() if options.tiny else released_size())
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "released"
        if not folder.exists():
            size = ["--tiny"] if options.tiny else []
            subprocess.run([sys.executable, __file__, "--make", "--folder", str(folder), *size], check=True)
        size_of_files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        rows = measure(folder)
    print(json.dumps({"benchmark": "released", "gigabytes": round(size_of_files / 1e9, 2), **describe(), "rows": rows}))


if __name__ == "__main__":
    main()
