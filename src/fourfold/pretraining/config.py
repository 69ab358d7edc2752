"""What is pretrained, on what budget, and where: the settings of `fourfold.pretraining.pretrain`."""

from pydantic import Field

from fourfold.configuration import Config
from fourfold.masking.config import MaskingConfig
from fourfold.model.config import ArchitectureConfig
from fourfold.model.losses import LossName
from fourfold.pretraining.mixture import DatasetConfig
from fourfold.training.config import ScheduleConfig, steps_of_tokens
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.parallel import Parallel
from fourfold.training.precision import Precision


class PlaceConfig(Config):
    """Where and how to compute. Nothing here changes what is learned, by more than last bits, so a run may go on elsewhere."""

    parallel: Parallel = "auto"  # under torchrun: whole models, or in shards; auto shards what would not fit a GPU
    micro_batch_size: int | None = Field(default=None, ge=1)  # samples that a process computes at once; None: its whole share
    num_workers: int = Field(default=0, ge=0)  # processes that read and mask for each process that trains
    prefetch: int = Field(default=2, ge=1)  # units of work that each worker is ahead
    compile: bool = False  # the blocks, by torch.compile: minutes at first, faster on GPUs
    profile_steps: int = Field(default=0, ge=0)  # steps of which a torch.profiler trace is kept, in profile/
    peak_tflops: float | None = Field(default=None, gt=0)  # of the device, for MFU; None: known GPUs only


class PretrainConfig(Config):
    """Model, masking, optimizer and budget. Tokens count inputs and targets of every sample, as in 4M."""

    model: ArchitectureConfig = ArchitectureConfig()
    masking: MaskingConfig = MaskingConfig()
    datasets: dict[str, DatasetConfig] = Field(default={})  # a mixture, by names of your choice; none: split `train`
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossName = "modality"
    batch_size: int = Field(default=16, ge=1)  # samples of a step, of all processes together
    total_tokens: int = Field(default=11_500_000, ge=1)
    warmup_tokens: int = Field(default=230_000, ge=0)
    final_lr_multiplier: float = Field(default=0.0, ge=0, le=1)  # of the learning rates, where the cosine ends
    clip_norm: float | None = Field(default=1.0, gt=0)
    average_decay: float | None = Field(default=None, gt=0, lt=1)  # moving average of the weights; None: off, as in 4M
    precision: Precision = "auto"
    shards_at_once: int = Field(default=8, ge=1)  # read and shuffled together
    cache_megabytes: int = Field(default=512, ge=0)  # of decoded shards
    validation_samples: int = Field(default=400, ge=1)
    log_every: int = Field(default=50, ge=1)  # steps
    validate_every: int = Field(default=1000, ge=1)  # steps
    checkpoint_every: int = Field(default=500, ge=1)  # steps
    keep_checkpoints: int = Field(default=1, ge=1)
    max_skipped_in_a_row: int = Field(default=10, ge=1)  # steps whose gradient is not finite; as many are an error
    place: PlaceConfig = PlaceConfig()

    @property
    def tokens_per_sample(self) -> int:
        """Input plus target budget."""
        return self.masking.input_tokens + self.masking.target_tokens

    @property
    def num_steps(self) -> int:
        """How many updates the token budget gives."""
        return steps_of_tokens(self.total_tokens, self.batch_size, self.tokens_per_sample)

    @property
    def schedule(self) -> ScheduleConfig:
        """Warm-up and cosine, in steps."""
        warmup_steps = steps_of_tokens(self.warmup_tokens, self.batch_size, self.tokens_per_sample)
        return ScheduleConfig(warmup_steps=warmup_steps, final_lr_multiplier=self.final_lr_multiplier)
