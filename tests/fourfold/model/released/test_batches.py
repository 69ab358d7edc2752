"""Batches of the reference as ours and back: the same slots, and the stored losses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fourfold.model.released.batches import from_masked_batch, to_masked_batch
from fourfold.model.released.checkpoint import load_released
from tests.fourfold.model.plain_reference import Plain
from tests.fourfold.model.released_files import SMALL, VALUES, as_ours, batch_of, checkpoint, write

from .test_checkpoint import GOLDEN

PARTS = ("tensor", "input_mask", "target_mask", "decoder_attention_mask")
MODALITIES = SMALL | {
    "t5_caption": ("vectors", 6, 7, ""),
    "rgb@448": ("pixels", 0, (6, 6), ""),
    "metadata": ("sequence", 9, 6, "target"),
    "tok_clip@224": ("grid", 7, (3, 3), "input"),
}


def golden(prefix: str):
    with np.load(GOLDEN.with_name("fourm_tiny_io.npz")) as file:
        arrays = dict(file)
    order = json.loads(str(arrays[f"{prefix}batch_order"]))
    batch = {name: {part: torch.tensor(arrays[f"{prefix}batch/{name}/{part}"]) for part in PARTS} for name in order}
    return batch, arrays


def tiny():
    """Return the golden model with the text lengths of its batch, which the file does not store."""
    model = load_released(GOLDEN)
    lengths = {"caption": 24, "det": 24}
    modalities = tuple(
        m.model_copy(update={"max_length": lengths[m.name]}) if m.max_length else m for m in model.config.modalities
    )
    return model, model.config.model_copy(update={"modalities": modalities})


@pytest.mark.parametrize(("prefix", "budgets"), [("", (48, 48)), ("edge/", (20, 30))], ids=["batch", "edge"])
def test_golden_batches_give_the_stored_losses(prefix, budgets):
    batch, arrays = golden(prefix)
    model, config = tiny()
    ours = to_masked_batch(batch, config, *budgets)
    if prefix:  # the reference shuffles the modalities of the decoder, which decides what is cut
        order = json.loads(str(arrays["edge/dec/order"]))
        shuffled = vars(to_masked_batch({name: batch[name] for name in order}, config, *budgets))
        ours = replace(ours, **{name: column for name, column in shuffled.items() if name.startswith("target")})
    with torch.no_grad():
        for loss, stored in (("reference_modality", "loss_mod"), ("reference_token", "loss_token")):
            expected = float(arrays[f"{prefix}{stored}/total"])
            assert float(model(ours, loss=loss).total) == pytest.approx(expected, abs=1e-5)


def test_random_batches_have_the_slots_of_the_plain_computation(tmp_path):
    tensors = checkpoint(VALUES, MODALITIES)
    model = load_released(write(tensors, VALUES, MODALITIES, tmp_path / "model.safetensors"))
    lengths = {name: entry[2] for name, entry in MODALITIES.items() if entry[0] == "sequence"}
    kinds = {name: entry[0] for name, entry in MODALITIES.items()}
    for seed in range(3):
        batch = batch_of(MODALITIES, VALUES, size=3, seed=seed)
        sides = Plain(tensors, VALUES, kinds, lengths).run(batch, most_inputs=18, most_targets=24)["sides"]
        expected = as_ours(sides, batch, MODALITIES, model.config, dict.fromkeys(lengths, 256))
        found = to_masked_batch(batch, model.config, 18, 24)
        for name, column in vars(expected).items():
            other = getattr(found, name)
            if name.startswith(("input", "target")):
                assert torch.equal(other[:, : column.shape[1]], column), name
                assert (other[:, column.shape[1] :] <= 0).all()
            else:
                assert torch.equal(other, column), name


def test_batches_return_to_the_same_losses_and_slots(tmp_path):
    model = load_released(write(checkpoint(VALUES, MODALITIES), VALUES, MODALITIES, tmp_path / "model.safetensors"))
    for seed in range(3):
        ours = to_masked_batch(batch_of(MODALITIES, VALUES, size=3, seed=seed), model.config, 60, 80)
        again = to_masked_batch(from_masked_batch(ours, model.config), model.config, 60, 80)
        for index in range(len(model.config.modalities)):
            for column in ("position", "token"):
                one, other = (
                    [getattr(b, f"input_{column}_BN")[row][b.input_modality_BN[row] == index].tolist() for row in range(3)]
                    for b in (ours, again)
                )
                assert one == other
            for column in ("position", "input", "id"):
                one, other = (
                    [getattr(b, f"target_{column}_BM")[row][b.target_modality_BM[row] == index].tolist() for row in range(3)]
                    for b in (ours, again)
                )
                assert one == other, (model.config.names[index], column)
        with torch.no_grad():
            torch.testing.assert_close(model(ours).total, model(again).total)


def test_pixels_of_bytes_are_standardized(tmp_path):
    model = load_released(write(checkpoint(VALUES, SMALL), VALUES, SMALL, tmp_path / "model.safetensors"))
    ours = to_masked_batch(batch_of(SMALL, VALUES), model.config, 20, 20)
    uint8 = replace(ours, pixels_BHWC=torch.randint(0, 256, ours.pixels_BHWC.shape, dtype=torch.uint8))
    theirs = to_masked_batch(from_masked_batch(uint8, model.config), model.config, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(uint8).total, model(theirs).total)


def test_other_batches_are_errors(tmp_path):
    model = load_released(write(checkpoint(VALUES, SMALL), VALUES, SMALL, tmp_path / "model.safetensors"))
    batch = batch_of(SMALL, VALUES)
    wrong = {
        "Unknown modality of this model 'tok_dept'": batch | {"tok_dept": batch["tok_depth@224"]},
        "lacks target_mask of 'caption'": batch
        | {"caption": {k: v for k, v in batch["caption"].items() if k != "target_mask"}},
        "is not that of masking": batch
        | {"caption": batch["caption"] | {"decoder_attention_mask": 2 * batch["caption"]["tensor"]}},
        "has masks of 8 positions; the model needs 9": batch
        | {"tok_depth@224": {key: value[:, :8] if "mask" in key else value for key, value in batch["tok_depth@224"].items()}},
    }
    for message, other in wrong.items():
        with pytest.raises(ValueError, match=message):
            to_masked_batch(other, model.config, 20, 20)
