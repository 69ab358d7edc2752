"""Settings of pretraining: model, masking, data mixture, budget, training loop, and where to compute."""

from pathlib import Path

from pydantic import Field

from fourfold.configuration import Config
from fourfold.masking.config import MaskingConfig
from fourfold.model.config import ArchitectureConfig
from fourfold.model.cross_entropy import LossName
from fourfold.training.config import LoopConfig, ScheduleConfig, steps_of_tokens
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.parallel import Parallel
from fourfold.training.precision import Precision


class ComputeConfig(Config):
    """Where and how to compute. Changes results by last bits at most, so a run may resume with other values."""

    parallel: Parallel = "auto"  # under torchrun: whole models or shards; auto shards what does not fit on a GPU
    micro_batch_size: int | None = Field(default=None, ge=1)  # samples per process and backward pass; None: its whole share
    # Processes with one thread each that share every step on a CPU. None: one for each thread if the model is small. One
    # with torchrun, micro_batch_size, compile or profile_steps, which need the whole step in a process
    replicas: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=0, ge=0)  # processes that read and mask, per training process
    prefetch: int = Field(default=2, ge=1)  # slices of work that each worker reads ahead
    compile: bool = False  # compile the blocks with torch.compile: takes minutes at the start, faster on GPUs
    profile_steps: int = Field(default=0, ge=0)  # steps to trace with torch.profiler, in profile/
    peak_tflops: float | None = Field(default=None, gt=0)  # of the device, for MFU; None: known GPUs only


class DatasetConfig(Config):
    """One data set of a mixture."""

    weight: float = Field(1.0, gt=0)  # relative to the other data sets
    split: str = "train"  # of the token shards
    source: str | None = None  # of several sources, the one whose samples it has; None: all
    modalities: tuple[str, ...] | None = None  # modalities to use; None: all it has
    masking: MaskingConfig | None = None  # None: that of the run


class PretrainLoopConfig(LoopConfig):
    """The training loop of a long run: it always validates and saves on the way."""

    validate_every: int = Field(default=1000, ge=1)  # steps
    checkpoint_every: int = Field(default=500, ge=1)  # steps


class PretrainConfig(Config):
    """What is learned, and on what budget. Tokens are counted as in 4M: inputs plus targets of every sample."""

    model: ArchitectureConfig = ArchitectureConfig()
    # Model whose weights the run starts from: a folder of this project, or a released file or folder. None: random weights
    start_from: Path | None = Field(default=None, exclude_if=lambda value: value is None)
    # Share of the variance of initial token embeddings that comes from the tokenizers' codes, so that similar tokens start with
    # similar embeddings; the rest is random. 4M: 0
    code_share: float = Field(default=0.0, ge=0, le=1)
    masking: MaskingConfig = MaskingConfig()
    datasets: dict[str, DatasetConfig] = Field(default={})  # a mixture, by names of your choice; empty: split `train`
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossName = "modality"  # mean over modalities of their mean per token; "token": mean over all target tokens
    batch_size: int = Field(default=16, ge=1)  # samples of a step, over all processes
    total_tokens: int = Field(default=11_500_000, ge=1)  # input and target tokens of the whole run
    warmup_tokens: int = Field(default=230_000, ge=0)  # of these, with linearly rising learning rates
    final_lr_multiplier: float = Field(default=0.0, ge=0, le=1)  # of the peak learning rates, at the end of the cosine
    precision: Precision = "auto"  # of matrix products; auto: bf16 where the hardware is fast at it, else fp32
    shards_at_once: int = Field(default=8, ge=1)  # read and shuffled together
    cache_megabytes: int = Field(default=512, ge=0)  # of decoded shards, per process
    validation_samples: int = Field(default=400, ge=1)  # of split `val`
    loop: PretrainLoopConfig = PretrainLoopConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def tokens_per_sample(self) -> int:
        """Input plus target budget."""
        return self.masking.input_tokens + self.masking.target_tokens

    @property
    def num_steps(self) -> int:
        """Number of updates in the token budget."""
        return steps_of_tokens(self.total_tokens, self.batch_size, self.tokens_per_sample)

    @property
    def schedule(self) -> ScheduleConfig:
        """Warm-up and cosine, in steps."""
        warmup_steps = steps_of_tokens(self.warmup_tokens, self.batch_size, self.tokens_per_sample)
        return ScheduleConfig(warmup_steps=warmup_steps, final_lr_multiplier=self.final_lr_multiplier)
