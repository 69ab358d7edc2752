"""All parameters of a run as one typed value: the only list of the sections that `conf/*/parameters.yml` may have."""

from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.evaluation.evaluate import EvaluationConfig
from fourfold.labelers.config import LabelingConfig
from fourfold.pretraining.config import PretrainConfig
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.transfer.config import TransferConfig


class Parameters(Config):
    """One section per stage, and what all stages share."""

    seed: int = Field(ge=0)  # every random number of a run derives from it
    num_threads: int = Field(ge=1, le=256)  # of torch on a CPU: another number gives other last bits
    ingestion: IngestionConfig
    pseudo_labeling: LabelingConfig
    tokenizer_training: TokenizersConfig
    pretraining: PretrainConfig
    finetuning: TransferConfig
    evaluation: EvaluationConfig
