"""All parameters of a run as one typed value: the only list of the sections that `conf/*/parameters.yml` may have."""

from typing import Any

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.evaluation.config import EvaluationConfig
from fourfold.labelers.config import LabelingConfig
from fourfold.plugins import load_plugins
from fourfold.pretraining.config import PretrainConfig
from fourfold.specialists.config import SpecialistsConfig
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.transfer.config import TransferConfig


class Parameters(Config):
    """One section per stage, and what all stages share. Plug-ins are loaded first: other sections may name their entries."""

    plugins: tuple[str, ...] = ()  # dotted paths of packages that add sources, labelers, tasks, ...
    seed: int = Field(ge=0)  # every random number of a run derives from it
    num_threads: int = Field(ge=1, le=256)  # of torch on a CPU: another number gives other last bits
    ingestion: IngestionConfig
    pseudo_labeling: LabelingConfig
    tokenizer_training: TokenizersConfig
    pretraining: PretrainConfig
    finetuning: TransferConfig
    evaluation: EvaluationConfig
    specialists: SpecialistsConfig = SpecialistsConfig()  # of `kedro run --pipelines=specialists`

    @model_validator(mode="before")
    @classmethod
    def _load_plugins(cls, values: Any) -> Any:
        modules = values.get("plugins") if isinstance(values, dict) else None
        if isinstance(modules, (list, tuple)) and all(isinstance(module, str) for module in modules):
            load_plugins(modules)  # anything else is reported as a wrong type when the field is validated
        return values


def compute_facts(stage: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what the last bits of a stage's results depend on beside code, settings and seed, for its MLflow run.

    Args:
        stage: Name of the stage.
        parameters: All parameters of the run.

    Returns:
        Precision (what `auto` resolves to), device, instruction set, number of threads and version of torch.
    """
    from fourfold.training.precision import compute_facts

    chosen = _values_of("precision", parameters.get(stage, {}))
    return compute_facts(chosen.pop() if len(chosen) == 1 else "auto")


def _values_of(key: str, values: Any) -> set[Any]:
    """Return the values of `key` at any depth of nested dictionaries."""
    if not isinstance(values, dict):
        return set()
    found = {value for name, value in values.items() if name == key and isinstance(value, str)}
    return found.union(*(_values_of(key, value) for value in values.values()))
