"""Save and load models: `model.safetensors`, `model.json` and their digests in one folder.

Files are written atomically, checked against their digests when they are read, and never pickled.
"""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.digests import check_digests, write_recorded, write_recorded_json
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.storage import read_json

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "model.json"
REMEDY = "Write it again with `kedro run --pipelines=pretraining`, or restore it with `dvc checkout --force`."


def save_model(model: FourM, folder: Path) -> None:
    """Write weights and configuration with their digests."""
    write_recorded(folder, WEIGHTS_FILE, save(state(model)))
    write_recorded_json(folder, CONFIG_FILE, model.config.model_dump(mode="json"))


def load_model(folder: Path) -> FourM:
    """Load a model for inference, in evaluation mode on the CPU.

    Raises:
        ValueError: A file is missing or was changed, or weights and configuration do not match.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder} holds no model: expected {CONFIG_FILE} and {WEIGHTS_FILE}. Run pretraining first.")
    check_digests(folder, REMEDY, WEIGHTS_FILE, CONFIG_FILE)
    try:
        model = FourM(ModelConfig.model_validate(read_json(folder / CONFIG_FILE)))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (ValidationError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold a complete model of this version: {error}") from error
    return model.eval()


def state(model: FourM) -> dict[str, Tensor]:
    """Return the weights by name, as contiguous CPU tensors."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
