"""What a training step copies: never a whole token table, and every weight is converted to bfloat16 once."""

from collections import Counter

import pytest
import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

# Names of operations that read or write all of their tensors
WHOLE = ("add", "mul", "mul_", "clone", "copy_", "_to_copy", "contiguous")
WIDTH, VOCABULARIES = 24, (301, 203, 97)


def step(precision: str) -> tuple[FourM, list[tuple[str, list[list[int]]]]]:
    """Run forward and backward of a small model; return it, and each operation with the shapes of its inputs."""
    modalities = [
        ModalityConfig(name="tok_rgb", kind="grid", vocabulary_size=VOCABULARIES[0], grid=(4, 4)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=VOCABULARIES[1], grid=(4, 4)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=VOCABULARIES[2], max_length=9),
    ]
    shape = {"dim": WIDTH, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
    model = FourM(ModelConfig.model_validate({"modalities": modalities, **shape}))
    modality_BN = torch.tensor([[0, 1, 2, 2]] * 3)
    position_BN = torch.tensor([[0, 1, 0, 1]] * 3)
    batch = MaskedBatch(modality_BN, position_BN, position_BN + 5, modality_BN, position_BN, position_BN, position_BN)
    with torch.profiler.profile(record_shapes=True) as profile:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(batch).total
        loss.backward()
    return model, [(event.name.removeprefix("aten::"), event.input_shapes) for event in profile.events()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_operation_copies_a_whole_token_table(precision):
    model, operations = step(precision)
    table = [sum(VOCABULARIES), WIDTH]
    whole = [(name, shapes) for name, shapes in operations if name in WHOLE and table in shapes]
    # of an addition in place, the output is an argument
    assert [(name, shapes) for name, shapes in whole if not (name == "add" and shapes[-1] == table)] == []
    for parameter in (model.input_tokens.weight_VD, model.target_tokens.weight_VD):
        assert parameter.grad.shape == tuple(table) and not parameter.grad.is_sparse


def test_each_weight_is_converted_once_a_step():
    model, operations = step("bf16")
    conversions = Counter(str(shapes[0]) for name, shapes in operations if name == "_to_copy")
    weights = Counter(str(list(p.shape)) for name, p in model.named_parameters() if p.ndim == 2 and "weight_VD" not in name)
    unique = [shape for shape, count in weights.items() if count == 1 and shape != str([3, WIDTH])]  # that of modalities
    # forward, and the gradient on its way back to float32
    assert {shape: conversions[shape] for shape in unique} == dict.fromkeys(unique, 2), conversions


def test_a_second_backward_pass_is_an_error():
    model, _ = step("fp32")
    modality = torch.tensor([[0, 1]])
    batch = MaskedBatch(modality, modality, modality, modality, modality, modality, modality)
    loss = model(batch).total
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Compute the loss again"):
        loss.backward()
