"""Checkpoints in the format of the Hugging Face hub: found, checked, and read without running code from outside.

Only safetensors are read, never pickles, and code that comes with a checkpoint is refused. From the hub only JSON, text and
safetensors are fetched, once, into its usual cache; everything is then read from that folder.
"""

import hashlib
import json
import re
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fourfold.configuration import Config
from fourfold.digests import sha256_file
from fourfold.labelers.extras import installed_version, require_package

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
FETCHED = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "*.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
LICENSE = re.compile(r"^license:\s*[\"']?([^\s\"']+)", re.MULTILINE)


class HubConfig(Config):
    """Which checkpoint a labeler uses, and how it is run."""

    model: str = Field(min_length=1)  # an id of the hub, or a folder
    revision: str | None = None  # commit, tag or branch of the hub; name a commit, so that the labels can be made again
    license: str | None = None  # of the weights; None: what the model card says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the GPU, if there is one
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(8, ge=1)  # images in one forward pass
    backend: Literal["torchvision", "pil"] = "torchvision"  # of the image processor; results differ slightly


class Checkpoint:
    """A folder with a checkpoint in the hub's format, whose files were checked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    @cached_property
    def config(self) -> Any:
        """The library's configuration object of the model."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder, **_LOCAL)

    @cached_property
    def digest(self) -> str:
        """A SHA-256 over all files that the labels depend on: weights, configuration, preprocessing, vocabulary."""
        names = sorted(path for pattern in FETCHED if pattern != "README.md" for path in self.folder.glob(pattern))
        content = [[path.name, sha256_file(path)] for path in names]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def commit(self) -> str | None:
        """The commit of the hub, if the folder is a snapshot of its cache."""
        return self.folder.name if COMMIT.fullmatch(self.folder.name) else None

    @property
    def license(self) -> str | None:
        """The license that the model card states; None without one."""
        card = self.folder / "README.md"
        found = LICENSE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        return found.group(1) if found else None

    def class_names(self) -> tuple[str, ...]:
        """Return the names in `id2label` by id, made unique: a repeated name gets its id appended."""
        names: list[str] = []
        for index in range(len(self.config.id2label)):
            name = str(self.config.id2label[index])
            names.append(f"{name} {index}" if name in names else name)
        return tuple(names)

    def model(self, auto_class: Any, settings: HubConfig) -> Any:
        """Return the model in evaluation mode, on its device.

        Raises:
            ValueError: the library has no class of this kind for the checkpoint, or the weights do not fit.
        """
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        dtype = getattr(torch, settings.dtype)
        try:
            model = auto_class.from_pretrained(self.folder, use_safetensors=True, dtype=dtype, **_LOCAL)
        except (ValueError, OSError, RuntimeError) as error:
            raise ValueError(
                f"Model {self.name!r} cannot be loaded as {auto_class.__name__}: {_first_line(error)} "
                "Choose a model of this task, or another kind of labeler."
            ) from error
        return model.eval().to(device_of(settings))

    def processor(self, auto_class: Any, settings: HubConfig, **options: Any) -> Any:
        """Return the processor that prepares images (and texts) for the model; raises ValueError if the folder has none.

        Args:
            auto_class: the library's class.
            settings: how the labeler is run.
            options: instead of those of the checkpoint.
        """
        try:
            return auto_class.from_pretrained(self.folder, backend=settings.backend, **_LOCAL, **options)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"Model {self.name!r} has no usable preprocessing ({auto_class.__name__}): {_first_line(error)} "
                "The folder needs the preprocessor_config.json of the checkpoint."
            ) from error


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def open_checkpoint(config: HubConfig) -> Checkpoint:
    """Return the checkpoint that the settings name, fetched from the hub if it is not a folder.

    Raises:
        ValueError: the extra is not installed, the checkpoint cannot be found, or has no safetensors or needs its own code.
    """
    return _opened(config.model, config.revision)


@cache
def _opened(model: str, revision: str | None) -> Checkpoint:
    require_package("transformers", "hub")
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _fetched(model, revision)
    _check(folder, model)
    return Checkpoint(folder, model)


def device_of(settings: HubConfig) -> str:
    """Return the torch device of the settings; raises ValueError when a GPU is required and there is none."""
    import torch

    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise ValueError("device is 'cuda', but torch finds no GPU. Use `device: auto` or `device: cpu`.")
    return "cuda" if available and settings.device != "cpu" else "cpu"


def origin_of(config: HubConfig) -> dict[str, Any]:
    """Return what manifests and cards record about the teacher."""
    checkpoint = open_checkpoint(config)
    return {
        "kind": "transformers",
        "model": config.model,
        "revision": checkpoint.commit or config.revision,
        "license": config.license or checkpoint.license,
        "sha256": checkpoint.digest,
        "software": f"transformers {installed_version('transformers')}",
    }


def require_known(model: str) -> None:
    """Raise ValueError when a model is neither a folder nor an id of the hub."""
    if not Path(model).expanduser().is_dir() and not HUB_ID.fullmatch(model):
        raise ValueError(f"model is {model!r}: there is no such folder. Give a folder, or an id of the hub such as owner/name.")


def _fetched(model: str, revision: str | None) -> Path:
    require_known(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FETCHED)))
    except (OSError, HFValidationError) as error:  # also those of HTTP and of missing repositories
        raise ValueError(
            f"Model {model!r} is not a folder, and cannot be fetched from the hub: {_first_line(error)} "
            "Correct the name or the revision, or fetch it on another machine and give the folder."
        ) from error


def _check(folder: Path, name: str) -> None:
    """Raise ValueError unless the folder has a configuration that the library knows, and safetensors."""
    from transformers import CONFIG_MAPPING

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has no readable config.json. Give the folder of a checkpoint in the hub's format."
        ) from error
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        code = " and brings its own code, which is not run" if "auto_map" in config else ""
        raise ValueError(
            f"Model {name!r} has type {kind!r}, which transformers {installed_version('transformers')} does not know{code}. "
            "Choose a checkpoint that the library supports, or export it to ONNX (kind: onnx)."
        )
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
        found = f" (only {', '.join(others)})" if others else ""
        raise ValueError(
            f"Model {name!r} has no weights as safetensors{found}. Other formats "
            "are not read, since loading them can run code. Choose a revision with safetensors, or convert the weights once."
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if line.endswith((".", "!", "?")) else f"{line}."
