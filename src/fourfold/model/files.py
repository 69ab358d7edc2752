"""Save and load models: `model.safetensors` and `model.json` in one folder. Files are written atomically and never pickled."""

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
    """Write weights, then the configuration: a folder with a configuration holds a complete model."""
    write_bytes(folder / WEIGHTS_FILE, save(state(model)))
    write_json(folder / CONFIG_FILE, model.config.model_dump(mode="json"))


def load_model(folder: Path) -> FourM:
    """Load a model for inference, in evaluation mode on the CPU.

    Raises:
        ValueError: A file is missing, or weights and configuration do not match.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder} holds no model: expected {CONFIG_FILE} and {WEIGHTS_FILE}. Run pretraining first.")
    try:
        model = FourM(ModelConfig.model_validate(read_json(folder / CONFIG_FILE)))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (ValidationError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold a complete model of this version: {error}") from error
    return model.eval()


def state(model: FourM) -> dict[str, Tensor]:
    """Return the weights by name, as contiguous CPU tensors."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
