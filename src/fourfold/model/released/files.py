"""Read and write files of released 4M models and tokenizers: safetensors whose metadata maps keys to `str()` of values.

Reading is strict: a file that is not exactly what its metadata implies is refused with the file and the key.
"""

import ast
import json
import logging
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourfold.storage import read_json, write_bytes

logger = logging.getLogger(__name__)
SHOWN = 5  # names in an error message
HUB_WEIGHTS, HUB_CONFIG = "model.safetensors", "config.json"  # file names of a model hub
NAMES = {"true": True, "false": False, "null": None, "none": None}  # as YAML and JSON spell them
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FORMATS = {  # first bytes of files that people take for safetensors → what they are
    b"PK": "a PyTorch pickle (a zip of torch.save)",
    b"\x80": "a pickle",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it points to",
    b"<": "an HTML or XML page",
}


class Tensors(dict[str, Tensor]):
    """The tensors of a file by name. A name that the file lacks raises ValueError."""

    def __missing__(self, key: str) -> Tensor:
        raise ValueError(lacking([key]))

    def below(self, start: str) -> bool:
        """Return whether the name of any tensor starts with `start`."""
        return any(key.startswith(start) for key in self)

    def commonest(self, *places: tuple[str, int]) -> int:
        """Return the size that most of these (name, axis) have. One damaged tensor is outvoted, and reported later.

        Raises:
            ValueError: The file has none of the tensors.
        """
        found = [self[key].shape[axis] for key, axis in places if key in self and axis < self[key].ndim]
        if not found:
            raise ValueError(lacking([key for key, _ in places if key not in self] or [places[0][0]]))
        return Counter(found).most_common(1)[0][0]


def lacking(keys: Iterable[str]) -> str:
    """Return the sentence about tensors that a file must have; the path is put before it by `naming`."""
    return f"it lacks {_some(keys)}. Download it again, or give another file."


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before the message of every ValueError, and make one line of those of pydantic."""
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in error.errors())
        raise ValueError(f"{path}: its settings do not fit: {problems}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_released(path: Path | str) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors by name, and the values of the metadata.

    If the header has no settings, they are read from `config.json` in the same folder, as model hubs store them. A tensor that
    a file stores once for several names is returned under each of them.

    Args:
        path: The safetensors file, or a folder with `model.safetensors`.

    Raises:
        ValueError: The file is missing, is not a safetensors file, or has no metadata.
    """
    path = weights_file(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = Tensors({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
            header = dict(file.metadata() or {})
    except SafetensorError as error:
        found = _other_format(path)
        raise ValueError(f"{path} is not a released safetensors file{found}: {error}. Give a .safetensors file.") from error
    tensors.update({key: tensors[same] for key, same in header.items() if same in tensors and key not in tensors})
    return tensors, {key: _value(text) for key, text in _metadata(path, header, tensors).items()}


def read_metadata(path: Path | str) -> dict[str, str]:
    """Return the metadata of a released file as it is stored; see `read_released`."""
    path = weights_file(path)
    with safe_open(path, "pt") as file:
        return _metadata(path, dict(file.metadata() or {}), set(file.keys()))


def weights_file(path: Path | str) -> Path:
    """Return the safetensors file of a path, which may be a folder of a model hub.

    Raises:
        ValueError: There is none.
    """
    path = Path(path)
    if path.is_dir():
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if not (path / HUB_WEIGHTS).is_file():
            only = f" It has {_some(pickles)}, which are pickles: they can run code, so they are never read." if pickles else ""
            raise ValueError(f"{path} has no {HUB_WEIGHTS}.{only} Give a .safetensors file, or a folder of a model hub.")
        return path / HUB_WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Give a .safetensors file, or a folder of a model hub.")
    return path


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Check that all tensors are floating-point numbers of at most 32 bits; warn about NaN and infinity.

    Raises:
        ValueError: A tensor has another type.
    """
    allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    for key, tensor in sorted(tensors.items()):
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{key} is {str(tensor.dtype).removeprefix('torch.')}; allowed: {allowed}. Download it again.")


def warn_of_nonfinite(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Log one warning that names the tensors with NaN or infinity, if any."""
    if keys := [key for key, tensor in sorted(tensors.items()) if not tensor.isfinite().all()]:
        logger.warning("%s has NaN or infinity in %s. The results of this model will be meaningless.", path, _some(keys))


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Check that the tensors are those that the metadata implies.

    Raises:
        ValueError: A tensor is missing, superfluous, or has another shape.
    """
    if missing := wanted.keys() - found.keys():
        raise ValueError(lacking(missing))
    if further := found.keys() - wanted.keys():
        raise ValueError(f"it has {_some(further)}, which its metadata does not allow. Give an unchanged file.")
    wrong = [key for key, tensor in sorted(wanted.items()) if tensor.shape != found[key].shape]
    if wrong:
        shapes = tuple(found[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
        more = f" ({_some(wrong[1:])} as well)" if wrong[1:] else ""
        raise ValueError(
            f"{wrong[0]} has the shape {shapes[0]}; its metadata implies {shapes[1]}{more}. Give an unchanged file."
        )


def write_released(tensors: Mapping[str, Tensor], values: Mapping[str, Any], path: Path | str) -> None:
    """Write tensors and metadata; equal content gives equal bytes."""
    write_bytes(Path(path), released_bytes(tensors, values))


def released_bytes(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """Return the content of a released file; equal tensors and metadata give equal bytes.

    The library writes metadata in the order of a hash table, which differs between processes. So the header is written here.
    """
    plain = safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in sorted(tensors.items())})
    length = struct.unpack("<Q", plain[:8])[0]
    metadata = {key: str(value) for key, value in sorted(values.items())}
    text = json.dumps({"__metadata__": metadata, **json.loads(plain[8 : 8 + length])}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + plain[8 + length :]


def image_size(value: Any) -> tuple[int, int]:
    """Return height and width of a released `image_size`, one number or a pair.

    Raises:
        ValueError: It is neither, or not positive.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"image_size is {value!r}; one positive number or a pair of them is allowed.")
    return sides


def image_size_value(size: Sequence[int]) -> int | list[int]:
    """Return height and width as released files store them: one number if they are equal. Inverse of `image_size`."""
    height, width = size
    return height if height == width else [height, width]


def _metadata(path: Path, header: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the settings of a file: those of its header, or of `config.json` beside it."""
    names = set(names)
    found = {key: text for key, text in header.items() if key != "format" and text not in names}
    beside = path.with_name(HUB_CONFIG)
    if not found and beside.is_file():
        stored = read_json(beside)
        if not isinstance(stored, dict):
            raise ValueError(f"{beside} is not a table of settings. Download it again.")
        found = {key: str(value) for key, value in stored.items()}
    if not found:
        raise ValueError(f"{path} has no metadata, and there is no {HUB_CONFIG} beside it. Give the file as it was released.")
    return found


def _other_format(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(32)
    kind = next((f", but {what}" for start, what in FORMATS.items() if first.startswith(start)), "")
    return f"{kind}; pickles can run code, so they are never read" if "pickle" in kind else kind


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError):
        return NAMES.get(text.lower(), text)  # other names, e.g. SiLU
