"""Training of one specialist: the data in memory, the loss of a step, and what it took."""

# N samples, B batch, H height, W width

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourfold.data.cursor import index_batches
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, collate
from fourfold.model.fourm import FourM
from fourfold.seeds import derive_seed, numpy_generator
from fourfold.specialists.measuring import MemoryMeter, StepClock
from fourfold.specialists.protocol import (
    MODEL,
    Finetuned,
    LabeledImages,
    Specialist,
    SpecialistConfig,
    SpecialistNetwork,
)
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.precision import default_device
from fourfold.training.run_context import RunContext

logger = logging.getLogger(__name__)
TRAIN = "train"  # the split that the generalist learns from
SEGMENTATION = "semseg"
MARKS = 20  # intervals in which the time of a training is measured


def load_labeled(shards: ShardSet, labels: ShardSet, target: str, max_samples: int) -> LabeledImages:
    """Read images of `train` and one of their labels, at most `max_samples`, which bounds the memory.

    Images that lack the label are left out and counted.

    Raises:
        ValueError: images and labels have different keys, or no image has the label.
    """
    if shards.keys(TRAIN) != labels.keys(TRAIN):
        raise ValueError("Images and labels of split 'train' have different keys. Run the pseudo_labeling stage again.")
    pairs = zip(shards.iterate(TRAIN, ["rgb"]), labels.iterate(TRAIN, [target]), strict=True)
    samples, num_missing = list[dict[str, Any]](), 0
    for image, label in pairs:
        if isinstance(label[target], Missing):
            num_missing += 1
        elif len(samples) < max_samples:
            samples.append({"rgb": image["rgb"], target: label[target]})
        else:
            break
    if not samples:
        raise ValueError(f"No image of split 'train' has the label {target!r}. Run pseudo_labeling again.")
    if num_missing:
        logger.warning("Specialists of %s: %d images without this label are left out.", target, num_missing)
    columns = collate(samples)
    images, values = columns["rgb"], columns[target]
    if len(images) == max_samples and len(images) < (total := shards.num_samples(TRAIN)):
        logger.warning("Specialists learn from the first %d of %d samples (specialists.max_samples).", len(images), total)
    # boxes without a class table of their own have the things of the segmentation
    names = [name for name in (target, SEGMENTATION) if name in labels.modalities(TRAIN)]
    tables = [labels.manifest(TRAIN, name).class_table for name in names]
    return LabeledImages(images, values, next((table for table in tables if table is not None), None))


def fit(
    specialist: Specialist,
    data: LabeledImages,
    config: SpecialistConfig,
    name: str,
    context: RunContext,
    *,
    start: FourM | None = None,
) -> tuple[dict[str, Any], dict[str, Any], SpecialistNetwork]:
    """Train one network; a killed training resumes from `context.folder`.

    Args:
        specialist: what is trained.
        data: the training images and their labels.
        config: its settings.
        name: of the training, for logs.
        context: seed, folder of the checkpoints and log.
        start: the generalist, for a specialist that is fine-tuned from it.

    Returns:
        The facts about the data that it was built from, what the training took, and the network.
    """
    clock, device = StepClock(), default_device()
    # 1) Build network and optimizer: pure functions of settings, data and seed
    facts = specialist.survey(data)
    if start is not None:
        facts = {**facts, MODEL: start.config.model_dump(mode="json")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(context.seed, "weights"))
        network = specialist.build(config, facts)
    if isinstance(network, Finetuned) and start is not None:
        network.start_from(start)
    network = network.to(device)
    weights_megabytes = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / 2**20
    memory = MemoryMeter()  # from here on: libraries that a network imports are no cost of its training
    optimizer = build_optimizer(network, config.fit.optimizer, network.matrices)
    steps, interval = config.fit.steps, max(1, config.fit.steps // MARKS)

    # 2) Train
    def compute_loss(indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step % interval == 0:
            clock.mark(step)
        batch = data.take(indices)
        mirrored = numpy_generator(context.seed, "mirrors", step).random(len(indices)) < config.flip
        images = np.where(mirrored[:, None, None, None], batch.rgb[:, :, ::-1], batch.rgb)
        with torch.random.fork_rng(devices=[]):  # detectors draw which boxes count
            torch.manual_seed(derive_seed(context.seed, "draws", step))
            losses = network.losses(torch.from_numpy(images).to(device), specialist.mirror(batch.values, mirrored))
        return torch.stack(list(losses.values())).sum(), {f"{name}/{key}": value for key, value in losses.items()}

    setup = TrainingSetup(
        network,
        compute_loss,
        lambda cursor: index_batches(len(data), min(config.fit.batch_size, len(data)), context.seed, "order", start=cursor),
        optimizer,
        steps,
        ScheduleConfig(warmup_steps=round(config.fit.warmup * steps)),
    )
    train(setup, LoopConfig(log_every=interval), context, description=name)
    clock.mark(steps)
    # 3) What it took
    rate = clock.seconds_per_step()
    costs = {
        "steps": steps,
        "samples": steps * min(config.fit.batch_size, len(data)),
        "seconds": None if rate is None else round(rate * steps, 3),
        "peak_megabytes": round(weights_megabytes + memory.peak_megabytes(), 1),
    }
    return facts, costs, network.eval()
