"""A model on disk: `model.safetensors` beside `model.json`; no pickles, and each file whole or absent."""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.storage import read_json, write_bytes, write_json

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "model.json"


def save_model(model: FourM, folder: Path) -> None:
    """Write weights and configuration into `folder`; the configuration last, so its presence means a whole model."""
    write_bytes(folder / WEIGHTS_FILE, save(state(model)))
    write_json(folder / CONFIG_FILE, model.config.model_dump(mode="json"))


def load_model(folder: Path) -> FourM:
    """Read a model for inference (evaluation mode, CPU). Raises ValueError when files are missing or do not fit each other."""
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder} holds no model: expected {CONFIG_FILE} and {WEIGHTS_FILE}. Run pretraining first.")
    try:
        model = FourM(ModelConfig.model_validate(read_json(folder / CONFIG_FILE)))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (ValidationError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold a whole model of this version: {error}") from error
    return model.eval()


def state(model: FourM) -> dict[str, Tensor]:
    """Return the weights as contiguous CPU tensors by name."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
