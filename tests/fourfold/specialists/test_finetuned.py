"""The fine-tuned generalist: where it starts, what it learns, and what another generalist changes."""

import numpy as np
import pytest
import torch

from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.fitting import FitConfig
from fourfold.modalities.class_table import ClassTable
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.specialists.answering import specialist_way
from fourfold.specialists.config import SpecialistsConfig
from fourfold.specialists.finetuned import FinetunedConfig
from fourfold.specialists.fitting import fit
from fourfold.specialists.protocol import MODEL
from fourfold.specialists.registry import SPECIALISTS
from fourfold.specialists.scoring import combinations
from fourfold.specialists.training import FINETUNED_FOLDER, SPECIALISTS_FOLDER, SpecialistSet, train_specialists
from fourfold.training.run_context import RunContext
from fourfold.transfer.learners import image_batch
from tests.fourfold.generation.counting import CountingTokenizers
from tests.fourfold.specialists.test_networks import quality
from tests.fourfold.specialists.tiny_scenes import labeled, shard_sets

MODALITIES = (
    ModalityConfig(name="rgb", kind="pixels", grid=(8, 8)),
    ModalityConfig(name="caption", kind="sequence", vocabulary_size=64, max_length=8),
)
CONFIG = ModelConfig(modalities=MODALITIES, dim=32, encoder_depth=2, decoder_depth=1, num_heads=2, patch_size=4)
HEADS = {
    "dense": {"width": 16, "depth": 1, "predictions_per_patch": 4},
    "boxes": {"width": 32, "hidden": 32, "anchor_cells": 2.0, "pool_side": 3, "proposals": 30, "sampled_boxes": 32},
}
NAMES = ("finetuned_depth", "finetuned_segmentation", "finetuned_boxes")


def settings(steps: int) -> FinetunedConfig:
    return FinetunedConfig(flip=0, heads=HEADS, fit=FitConfig(steps=steps, batch_size=8))


def untrained(name: str, seed: int = 3):
    specialist = SPECIALISTS.get(name)
    facts = {**specialist.survey(labeled(specialist.target, 4)), MODEL: CONFIG.model_dump(mode="json")}
    network = specialist.build(settings(1), facts)
    network.start_from(FourM(CONFIG, seed))
    return network.eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_from_the_encoder_of_the_generalist(name):
    network, generalist, rgb = untrained(name), FourM(CONFIG, 3).eval(), labeled("depth", 2).rgb
    with torch.inference_mode():
        wanted = generalist.encode(image_batch(generalist, rgb)).features_BND
        (found,) = network.backbone(rgb, 1)
    assert torch.equal(found, wanted.mT.unflatten(2, (8, 8)))


# A constant depth has -0.43, one class everywhere 0.1, and boxes of an untrained head 0
@pytest.mark.parametrize(
    ("name", "count", "steps", "enough"), [(NAMES[0], 8, 80, -0.2), (NAMES[1], 8, 80, 0.6), (NAMES[2], 2, 40, 0.1)]
)
def test_it_learns_one_batch(name, count, steps, enough):
    specialist = SPECIALISTS.get(name)
    data = labeled(specialist.target, count)
    facts, costs, network = fit(specialist, data, settings(steps), name, RunContext(0), start=FourM(CONFIG, 3))
    with torch.inference_mode():
        found = quality(specialist.target, network.predict(torch.from_numpy(data.rgb)), data)
    assert found > enough, found
    assert facts[MODEL]["dim"] == CONFIG.dim and costs["steps"] == steps


def test_ignored_classes_have_no_loss():
    specialist = SPECIALISTS.get("finetuned_segmentation")
    table = ClassTable(names=("a", "b"), ignored=(1,))
    facts = {"class_table": table.model_dump(mode="json"), MODEL: CONFIG.model_dump(mode="json")}
    network = specialist.build(settings(1), facts)
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert network.losses(images, np.full((1, 32, 32), 1, np.uint8))["loss"].item() == 0
    assert network.losses(images, np.zeros((1, 32, 32), np.uint8))["loss"].item() > 0


def test_rows_count_what_a_prediction_needs_and_pretraining_once():
    ways = [specialist_way(SPECIALISTS.get(name), untrained(name)) for name in NAMES]
    (together,) = combinations(ways)
    assert together.trained_with == ("generalist", *NAMES) and together.parts == NAMES
    sizes = [way.size() for way in ways]
    assert together.size()["parameters"] == sum(size["parameters"] for size in sizes) and together.size()["networks"] == 3
    encoder = sum(parameter.numel() for block in FourM(CONFIG).encoder for parameter in block.parameters())
    whole = sum(parameter.numel() for parameter in untrained(NAMES[0]).parameters())
    assert encoder < sizes[0]["parameters"] < whole
    assert sizes[0]["code_modules"] > 20  # pretraining included


def test_another_generalist_leaves_the_specialists_as_they_are(tmp_path):
    data = shard_sets(tmp_path / "data", 8)
    small = {"fit": {"steps": 2, "batch_size": 4}}
    config = SpecialistsConfig(
        models=("unet_depth",),
        finetuned=("finetuned_segmentation",),
        settings={"unet_depth": {"width": 4, "depth": 2, **small}, "finetuned_segmentation": {"heads": HEADS, **small}},
    )
    with pytest.raises(ValueError, match="there is no generalist"):
        train_specialists(*data, config, RunContext(0, tmp_path / "out"))

    def train(seed: int) -> tuple[SpecialistSet, int, bytes]:
        generalist = AnyToAny(FourM(CONFIG, seed), CountingTokenizers())
        found = train_specialists(*data, config, RunContext(0, tmp_path / "out"), generalist)
        plain = found.root / SPECIALISTS_FOLDER / "unet_depth-seed0.safetensors"
        tuned = found.root / FINETUNED_FOLDER / "finetuned_segmentation-seed0.safetensors"
        return found, plain.stat().st_mtime_ns, tuned.read_bytes()

    first, again, other = train(3), train(3), train(4)
    assert first[1] == again[1] == other[1] and first[2] == again[2] != other[2]
    assert first[0].network(SPECIALISTS.get("finetuned_segmentation"), 0).training is False
