"""Training of all specialists on the labels that the pipeline made: the images, the labels and the split of the generalist.

Every training resumes exactly; a specialist that is finished is not trained again. On a CPU several train at once, each with
one thread (`fourfold.local_workers`). Specialists start from random weights; those that are fine-tuned, from the generalist.
Each kind has a folder, so that another generalist leaves the others as they are.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from fourfold.data.shards import ShardSet
from fourfold.digests import check_digests, is_intact, write_recorded, write_recorded_json
from fourfold.generation.any_to_any import AnyToAny
from fourfold.metric_log import MetricLog
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import derive_seed
from fourfold.specialists.config import SpecialistsConfig
from fourfold.specialists.fitting import TRAIN, fit, load_labeled
from fourfold.specialists.protocol import Specialist, SpecialistNetwork
from fourfold.storage import read_json, write_json
from fourfold.training.independent import train_each
from fourfold.training.precision import default_device
from fourfold.training.run_context import RunContext

SETTINGS_FILE, COSTS_FOLDER = "specialists.json", "costs"
SPECIALISTS_FOLDER, FINETUNED_FOLDER = "specialists", "finetuned"
REMEDY = "Run `kedro run --pipelines=specialists` again: it trains what is missing or changed."


@dataclass(frozen=True)
class SpecialistSet:
    """The trained specialists of a folder. Networks are loaded when they are asked for."""

    root: Path
    config: SpecialistsConfig

    @classmethod
    def load(cls, folder: Path) -> "SpecialistSet":
        """Open what `train_specialists` wrote; raises ValueError when it is not complete, or a file changed."""
        if not (folder / SETTINGS_FILE).is_file():
            raise ValueError(f"{folder} holds no specialists. {REMEDY}")
        config = SpecialistsConfig.model_validate(read_json(folder / SETTINGS_FILE))
        check_digests(folder, REMEDY, SETTINGS_FILE)
        for one in config.chosen():
            check_digests(folder_of(folder, one), REMEDY, *(weights_file(one.name, seed) for seed in range(config.num_seeds)))
        return cls(folder, config)

    def network(self, specialist: Specialist, seed: int) -> SpecialistNetwork:
        """Return a trained network in evaluation mode.

        Args:
            specialist: one of `config.chosen()`.
            seed: which of its trainings, from 0.
        """
        path = folder_of(self.root, specialist) / weights_file(specialist.name, seed)
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
        network = specialist.build(self.config.settings_of(specialist), facts)
        network.load_state_dict(load_file(path))
        return network.to(default_device()).eval()

    def costs(self, specialist: Specialist) -> list[dict[str, Any]]:
        """Return what each training took: `steps`, `seconds` (None if it was not measured) and `peak_megabytes`."""
        folder = folder_of(self.root, specialist) / COSTS_FOLDER
        paths = [folder / f"{_run_name(specialist.name, seed)}.json" for seed in range(self.config.num_seeds)]
        return [read_json(path) for path in paths if path.is_file()]

    def digest(self) -> str:
        """Return a SHA-256 over all weights and settings."""
        folders = {folder_of(self.root, one) for one in self.config.chosen()}
        record = [check_digests(folder, REMEDY) for folder in (self.root, *sorted(folders))]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def folder_of(root: Path, specialist: Specialist) -> Path:
    """Return the folder of the weights of a specialist."""
    return root / (FINETUNED_FOLDER if specialist.is_finetuned else SPECIALISTS_FOLDER)


def weights_file(name: str, seed: int) -> str:
    """Return the file of the weights of one training."""
    return f"{_run_name(name, seed)}.safetensors"


def train_specialists(
    shards: ShardSet, labels: ShardSet, config: SpecialistsConfig, context: RunContext, generalist: AnyToAny | None = None
) -> SpecialistSet:
    """Train every configured specialist on the split `train`.

    Args:
        shards: the images.
        labels: what the labelers made of them.
        config: the specialists and their settings.
        context: the seed of the run, from which every training derives its own, the folder of the weights, and the log.
        generalist: what `config.finetuned` starts from; None where nothing is fine-tuned.

    Raises:
        ValueError: a package is missing, the labels lack what a specialist predicts, or there is no generalist to fine-tune.
    """
    chosen = config.chosen()
    _check(chosen, labels, generalist)
    data = {"shards": shards.digest(), "labels": labels.digest()}
    finetuned = [one for one in chosen if one.is_finetuned]
    # 1) The settings are written last and mark the set as complete
    (context.root / SETTINGS_FILE).unlink(missing_ok=True)
    # 2) Claim the folders. How costs are measured does not change the weights.
    _claim(context.within(SPECIALISTS_FOLDER), config, [one for one in chosen if not one.is_finetuned], data)
    if generalist is not None and finetuned:
        _claim(context.within(FINETUNED_FOLDER), config, finetuned, {**data, "generalist": generalist.digest()})
    # 3) Train what is missing
    runs = {_run_name(one.name, index): (one, index) for one in chosen for index in range(config.num_seeds)}

    def train_run(name: str, log: MetricLog) -> None:
        specialist, index = runs[name]
        learned, settings = load_labeled(shards, labels, specialist.target, config.max_samples), config.settings_of(specialist)
        folder = folder_of(context.root, specialist)
        seed = derive_seed(context.seed, "specialists", specialist.name, index)
        start = generalist.model if generalist is not None and specialist.is_finetuned else None
        with replace(context, seed=seed, log=log, folder=folder).scratch(f"{name}-checkpoints") as scratch:
            facts, costs, network = fit(specialist, learned, settings, name, scratch, start=start)
            write_json(folder / COSTS_FOLDER / f"{name}.json", costs)
            _write(folder, weights_file(specialist.name, index), network, facts)

    def is_missing(name: str) -> bool:
        folder = folder_of(context.root, runs[name][0])
        return not is_intact(folder, f"{name}.safetensors", remedy="Training it again.")

    train_each(train_run, list(filter(is_missing, runs)), context)
    write_recorded_json(context.root, SETTINGS_FILE, config.model_dump(mode="json"))
    return SpecialistSet.load(context.root)


def _claim(context: RunContext, config: SpecialistsConfig, chosen: Sequence[Specialist], inputs: dict[str, str]) -> None:
    settings = {one.name: config.settings_of(one).model_dump(mode="json") for one in chosen}
    learned = {"settings": settings, "num_seeds": config.num_seeds, "max_samples": config.max_samples, "seed": context.seed}
    claim(context.root, fingerprint(__name__, inputs=inputs, uses=[one.build for one in chosen], **learned))


def _check(chosen: Sequence[Specialist], labels: ShardSet, generalist: AnyToAny | None) -> None:
    known = labels.modalities(TRAIN)
    for specialist in chosen:
        specialist.require()
        if specialist.target not in known:
            raise ValueError(
                f"Specialist {specialist.name!r} learns {specialist.target!r}, and the labels are: {', '.join(known)}. "
                f"Add a labeler for it, or leave it out of specialists.{'finetuned' if specialist.is_finetuned else 'models'}."
            )
        if specialist.is_finetuned and generalist is None:
            raise ValueError(f"{specialist.name!r} is fine-tuned, and there is no generalist. Run pretraining first.")


def _run_name(name: str, seed: int) -> str:
    return f"{name}-seed{seed}"


def _write(folder: Path, name: str, network: nn.Module, facts: dict[str, Any]) -> None:
    tensors = {key: tensor.cpu().contiguous() for key, tensor in network.state_dict().items()}
    write_recorded(folder, name, save(tensors, {"facts": json.dumps(facts)}))
