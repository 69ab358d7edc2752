"""Running an ONNX file: preparation of images as `conf/` describes it, and the outputs by name or place."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from fourfold.configuration import Config
from fourfold.digests import sha256_file
from fourfold.labelers.extras import installed_version, require_package
from fourfold.labelers.protocol import Labeler, LabelingContext

# B images of a chunk, H, W pixels


class InputConfig(Config):
    """How images become the input of the network: resized, then (x / 255 − mean) / std."""

    size: tuple[int, int] = (224, 224)  # rows and columns
    resize: Literal["squash", "pad"] = "squash"  # pad: the aspect is kept, and gray (114) fills the rest, as YOLO does
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    layout: Literal["nchw", "nhwc"] = "nchw"
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the channels in the order of `color`, for values in 0-1
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dtype: Literal["float32", "float16", "uint8"] = "float32"  # uint8: pixels as they are, without mean and std


class OnnxConfig(Config):
    """Which file a labeler uses, and how it is run."""

    path: str = Field(min_length=1)  # of the ONNX file
    input: InputConfig = InputConfig()
    outputs: tuple[str, ...] = ()  # names of the outputs that are used, in order; (): all, in the order of the file
    license: str | None = None  # of the weights
    batch_size: int = Field(1, ge=1)  # images in one call; exports with a fixed batch allow one


class OnnxLabeler(Labeler):
    """Opens the file when the first image is labeled."""

    kind = "onnx"
    config: OnnxConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.require(self.config)

    @classmethod
    def require(cls, config: OnnxConfig) -> None:
        """Raise ValueError when the extra or the file is missing."""
        require_package("onnxruntime", "onnx")
        if not Path(config.path).expanduser().is_file():
            raise ValueError(f"path is {config.path!r}: there is no such file. Give the ONNX file of the network.")

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return Path(self.config.path).expanduser()

    def origin(self) -> dict[str, Any]:
        """Return file, license and digest of the network."""
        return {
            "kind": self.kind,
            "model": self.path.name,
            "license": self.config.license,
            "sha256": sha256_file(self.path),
            "software": f"onnxruntime {installed_version('onnxruntime')}",
        }

    @cached_property
    def session(self) -> Any:
        """The opened network; one thread, so that results do not depend on the machine's cores."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has a class of errors for each status
            line = str(error).splitlines()[0]
            raise ValueError(f"{self.path} cannot be opened: {line}. Give an ONNX file that onnxruntime supports.") from error

    def run(self, rgb_BHW3: Any) -> Iterator[tuple[list[Image.Image], list[np.ndarray]]]:
        """Yield some images and the outputs (B, ...) of the network for them, until the batch ends.

        Raises:
            ValueError: the network has no output of a configured name, or does not accept the input.
        """
        images = [Image.fromarray(np.asarray(rgb_HW3)) for rgb_HW3 in rgb_BHW3]
        known = [one.name for one in self.session.get_outputs()]
        wanted = list(self.config.outputs) or known
        if unknown := sorted(set(wanted) - set(known)):
            raise ValueError(f"{self.path} has no output {', '.join(unknown)}. It has: {', '.join(known)}. Correct `outputs`.")
        (first, *_) = self.session.get_inputs()
        for start in range(0, len(images), self.config.batch_size):
            some = images[start : start + self.config.batch_size]
            pixels = np.stack([prepared(image, self.config.input) for image in some])
            try:
                yield some, self.session.run(wanted, {first.name: pixels})
            except Exception as error:
                line, given = str(error).splitlines()[0], f"{pixels.dtype} {pixels.shape}"
                raise ValueError(
                    f"{self.path} does not accept {given} (it expects {first.type} {first.shape}): {line}. Correct `input`."
                ) from error


def prepared(image: Image.Image, config: InputConfig) -> np.ndarray:
    """Return the network's input of one image, (3, H, W) or (H, W, 3)."""
    rows, columns = config.size
    resampling = Image.Resampling[config.interpolation.upper()]
    if config.resize == "pad":
        canvas, (left, top, width, height) = Image.new("RGB", (columns, rows), (114, 114, 114)), placement(image.size, config)
        canvas.paste(image.resize((width, height), resampling), (left, top))
        image = canvas
    pixels = np.asarray(image.resize((columns, rows), resampling))
    pixels = pixels[..., ::-1] if config.color == "bgr" else pixels
    if config.dtype != "uint8":
        pixels = _normalized(pixels, config).astype(config.dtype)
    return np.ascontiguousarray(pixels if config.layout == "nhwc" else pixels.transpose(2, 0, 1))


def _normalized(pixels_HW3: np.ndarray, config: InputConfig) -> np.ndarray:
    mean_3, std_3 = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    return (pixels_HW3.astype(np.float32) / 255 - mean_3) / std_3


def placement(size: tuple[int, int], config: InputConfig) -> tuple[int, int, int, int]:
    """Return where an image of (width, height) is in the network's input: left, top, width, height in pixels."""
    rows, columns = config.size
    if config.resize == "squash":
        return 0, 0, columns, rows
    scale = min(columns / size[0], rows / size[1])
    width, height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (columns - width) // 2, (rows - height) // 2, width, height
