"""Every training computes with deterministic kernels: other work on the machine does not change its bytes."""

import pytest
import torch
from torch import Tensor, nn

from fourfold.data.cursor import index_batches
from fourfold.labelers.fitting import FitConfig, fit
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.determinism import deterministic_kernels
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.run_context import RunContext
from tests.fourfold.busy import two_busy_threads

ROWS = torch.randint(3, (2048,), generator=torch.Generator().manual_seed(0))
WEIGHT_ND = torch.randn(2048, 64, generator=torch.Generator().manual_seed(1))


class Indexed(nn.Module):
    """A table that is read by an index with many equal entries, as a plug-in may do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 64))

    def loss(self) -> Tensor:
        return (self.table[ROWS] * WEIGHT_ND).sum()


def test_the_gradient_of_an_index_is_deterministic_in_every_training():
    def trained() -> bytes:
        model = Indexed()
        optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=0.1))
        batches = lambda cursor: index_batches(4, 4, 0, start=cursor)  # noqa: E731
        setup = TrainingSetup(model, lambda *_: (model.loss(), {}), batches, optimizer, 4, ScheduleConfig(kind="constant"))
        train(setup, LoopConfig(clip_norm=None), RunContext(0))
        return model.table.detach().numpy().tobytes()

    with two_busy_threads():
        assert len({trained() for _ in range(4)}) == 1


@pytest.mark.parametrize("before", [True, False])
def test_the_choice_of_kernels_is_restored(before):
    torch._C._set_deterministic_algorithms(
        before, warn_only=True
    )  # as torch.use_deterministic_algorithms, without a slow import
    try:
        with pytest.raises(KeyError), deterministic_kernels(torch.device("cpu")):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            raise KeyError
        assert torch.are_deterministic_algorithms_enabled() is before
        with deterministic_kernels(torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch._C._set_deterministic_algorithms(False)


def test_tokenizers_have_the_same_bytes_beside_a_busy_process():
    config = VisualTokenizerConfig(steps=4, unquantized_steps=2, decoder_steps=1, batch_size=8, codebook_size=16)
    values = torch.randint(256, (16, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()

    def trained() -> dict[str, bytes]:
        tokenizer = train_visual_tokenizer(TrainingValues("rgb", values, (8, 8)), config, RunContext(0))
        return {name: tensor.numpy().tobytes() for name, tensor in tokenizer.model.state_dict().items()}

    with two_busy_threads():
        first = trained()
        assert trained() == first


def test_teachers_have_the_same_bytes_beside_a_busy_process():
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def trained() -> list[bytes]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 24, 3, 2), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3))
        losses = lambda indices, step: {"size": network(images[torch.from_numpy(indices)]).square().mean()}  # noqa: E731
        fit(network, losses, 16, FitConfig(steps=6, batch_size=8), "tiny", RunContext(0))
        return [tensor.numpy().tobytes() for tensor in network.state_dict().values()]

    with two_busy_threads():
        first = trained()
        assert all(trained() == first for _ in range(3))
