"""Released models as sets: one folder with the transformer, its tokenizers and the text vocabulary.

Files are recognized by their content, tokenizers by their names: `depth.safetensors`, `tok_depth/model.safetensors` and
`4M_tokenizers_depth_8k_224-448/model.safetensors` all belong to depth.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fourfold.digests import sha256_file
from fourfold.generation.config import find_modality
from fourfold.modalities import LABELS, TOKEN_MODALITIES, base_name, target_of
from fourfold.modalities.table import RELEASED_PIXELS
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import export_released, load_released
from fourfold.model.released.files import HUB_WEIGHTS, naming
from fourfold.storage import read_json
from fourfold.tokenizers.config import TokenizersConfig, is_image
from fourfold.tokenizers.released.checkpoint import export_released_tokenizer, load_released_tokenizer
from fourfold.tokenizers.released.text import export_released_text, load_released_text
from fourfold.tokenizers.released.visual import ReleasedVisualTokenizer
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer

TEXT_FILE = "text_tokenizer.json"
TOKENIZERS_FOLDER = "tokenizers"
LICENSES = ("LICENSE*", "COPYING*", "license*")
UNKNOWN_LICENSE = "not stated in the folder"
UNUSED = re.compile(r"human.?poses|sam.?instance")
logger = logging.getLogger(__name__)
EDGES = ("canny_edge", "sam_edge")  # share one released tokenizer


@dataclass(frozen=True)
class ReleasedFiles:
    """The files of a released set."""

    model: Path
    text: Path
    tokenizers: dict[str, Path] = field(default_factory=dict)  # by label

    @property
    def all(self) -> list[Path]:
        """All files, each once."""
        return [self.model, self.text, *dict.fromkeys(self.tokenizers.values())]


def is_released(folder: Path) -> bool:
    """Return whether a folder holds released files and is no model folder of ours."""
    ours = (folder / "model" / "model.json").is_file() or (folder / TOKENIZERS_FOLDER / "tokenizers.json").is_file()
    return folder.is_dir() and not ours and any(folder.rglob("*.safetensors"))


def find_released(folder: Path) -> ReleasedFiles:
    """Return the files of a set.

    Raises:
        ValueError: the transformer or the text tokenizer is missing or there are several, or a file's name does not tell
            the modality of a tokenizer.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist or is no folder. Give a folder with released 4M files.")
    models: list[Path] = []
    tokenizers: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        keys = _keys(path)
        if "mask_token" in keys or any("_embeddings." in key for key in keys):
            models.append(path)
            continue
        name = path.parent.name if path.name == HUB_WEIGHTS else path.stem
        if UNUSED.search(name.lower()):
            logger.info("%s is not used: this project writes poses and instances as text, without their tokenizers.", path)
            continue
        labels = labels_of_name(name)
        if not labels:
            dense = ", ".join(name for name, entry in LABELS.items() if entry.reconstruction_loss)
            raise ValueError(f"{path}: its name does not tell the modality. Rename the file or its folder to one of {dense}.")
        for one in labels:
            if one in tokenizers:
                raise ValueError(f"{folder} has two tokenizers of {one!r}: {tokenizers[one]} and {path}. Delete one of them.")
            tokenizers[one] = path
    texts = [path for path in sorted(folder.rglob("*.json")) if _is_text(path)]
    for what, found in (("transformer (.safetensors)", models), ("text tokenizer (.json)", texts)):
        if len(found) != 1:
            names = ", ".join(str(path) for path in found) or "none"
            raise ValueError(f"{folder} must have one {what}, found {names}. Add or delete files.")
    return ReleasedFiles(models[0], texts[0], tokenizers)


def labels_of_name(name: str) -> list[str]:
    """Return the labels of a tokenizer by the name of its file or folder; none if the name does not tell."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    if "edge" in words or "edges" in words:
        return [edge for edge in EDGES if edge.split("_")[0] in words] or list(EDGES)
    bases = [word for word in words if word in LABELS and LABELS[word].reconstruction_loss]
    found = [f"{base}_global" if "global" in words and f"{base}_global" in LABELS else base for base in dict.fromkeys(bases)]
    return found if len(found) == 1 else []


def load_released_set(folder: Path) -> tuple[FourM, TokenizerSet, dict[str, Any]]:
    """Return the transformer, its tokenizers, and where they come from.

    Raises:
        ValueError: a file is missing or damaged, or a tokenizer does not belong to this transformer.
    """
    files = find_released(folder)
    model = load_released(files.model)
    text = load_released_text(files.text)
    visual: dict[str, VisualTokenizer] = {}
    for name, path in sorted(files.tokenizers.items()):  # the order of a saved set, which its digest depends on
        token_name = find_modality(target_of(name).name, model.config.names)
        if token_name not in model.config.names:
            continue  # a tokenizer of another model
        modality = model.config.modality(token_name)
        network = load_released_tokenizer(path)
        with naming(path):
            if modality.grid is None:
                raise ValueError(f"the model has {token_name} as {modality.kind}; it must be a grid. Give another model.")
            visual[name] = ReleasedVisualTokenizer(name, network, modality.grid)
            _check_vocabulary(token_name, modality.vocabulary_size, visual[name].vocabulary_size)
    with naming(files.text):
        for modality in model.config.modalities:
            if modality.kind == "sequence":
                _check_vocabulary(modality.name, modality.vocabulary_size, text.vocabulary_size)
    return model, TokenizerSet(_settings(model.config, text, visual), text, visual), provenance(folder, files, model)


def provenance(folder: Path, files: ReleasedFiles, model: FourM) -> dict[str, Any]:
    """Return names, sizes and SHA-256 of the files, the license, and the metadata of the transformer."""
    licenses = sorted({path for pattern in LICENSES for path in folder.rglob(pattern) if path.is_file()})
    listed = [*files.all, *licenses]
    return {
        "files": [
            {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in listed
        ],
        "license": ", ".join(path.relative_to(folder).as_posix() for path in licenses) or UNKNOWN_LICENSE,
        "metadata": model.released_metadata,
    }


def export_released_set(model: FourM, tokenizers: TokenizerSet, folder: Path) -> list[Path]:
    """Write a set in the released layout; return its files.

    Raises:
        ValueError: a tokenizer was not imported from a released file: the reference has no network of that kind.
    """
    own = [name for name, tokenizer in tokenizers.visual.items() if not isinstance(tokenizer, ReleasedVisualTokenizer)]
    if own:
        raise ValueError(
            f"The tokenizers of {', '.join(own)} were trained here, and 4M has no such networks; only imported ones can be "
            "exported. Use `export_released` for the transformer alone."
        )
    paths = [folder / HUB_WEIGHTS, folder / TEXT_FILE]
    export_released(model, paths[0])
    export_released_text(tokenizers.text, paths[1])
    for name, tokenizer in tokenizers.visual.items():
        assert isinstance(tokenizer, ReleasedVisualTokenizer)
        paths.append(folder / TOKENIZERS_FOLDER / f"{name}.safetensors")
        export_released_tokenizer(tokenizer.model.network, paths[-1])
    return paths


def _settings(config: ModelConfig, text: TextTokenizer, visual: dict[str, VisualTokenizer]) -> TokenizersConfig:
    """Return the settings of the set, from the modalities of the transformer."""
    known = [modality for modality in config.modalities if base_name(modality.name) in TOKEN_MODALITIES]
    labels = {modality.name: TOKEN_MODALITIES[base_name(modality.name)].label for modality in known}
    sequences = {
        labels[m.name]: m.max_length
        for m in known
        if m.kind == "sequence" and m.max_length and m.name not in ("caption", "det")
    }
    vectors = {labels[m.name]: (m.num_positions, m.vector_width or 0) for m in known if m.kind == "vectors"}
    grids = [tokenizer.own_grid for name, tokenizer in visual.items() if is_image(name) and tokenizer.own_grid]
    return TokenizersConfig(
        grid=grids[0] if grids else (14, 14),
        visual={name: tokenizer.config for name, tokenizer in visual.items()},
        text=text.config,
        sequences=sequences,
        vectors=vectors,
        resolutions=_resolutions(config.names, visual),
    )


def _resolutions(names: Iterable[str], visual: dict[str, VisualTokenizer]) -> dict[str, tuple[int, ...]]:
    """Return label → sides of further resolutions of images, beside the lowest one, which has the plain name."""
    found: dict[str, tuple[int, ...]] = {}
    for name in filter(is_image, visual):
        token_name = target_of(name).name
        sides = sorted({int(other.partition("@")[2] or RELEASED_PIXELS) for other in names if base_name(other) == token_name})
        found |= {name: tuple(sides[1:])} if len(sides) > 1 else {}
    return found


def _check_vocabulary(name: str, wanted: int, found: int) -> None:
    if found != wanted:
        raise ValueError(f"it has {found} ids, but the model's {name} needs {wanted}. Give the tokenizer of this model.")


def _keys(path: Path) -> set[str]:
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}. Download it again.") from error


def _is_text(path: Path) -> bool:
    stored = read_json(path)
    return isinstance(stored, dict) and isinstance(stored.get("model"), dict) and "vocab" in stored["model"]
