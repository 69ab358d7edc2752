"""Pipelines of the miniature project.

`make` (driver) → `train`, `label` (pods) → `write_report` (driver); `pair`: two pods that sum their ranks.
"""

import json
import logging
import os
import time

from kedro.pipeline import Pipeline, node

from fourfold_ops import handover
from fourfold_ops.errors import UserError

logger = logging.getLogger(__name__)
CHECKPOINT_EVERY = 5


def make(making):
    return list(range(making["size"]))


def train(numbers, training, folder, log):
    """Compute a sum that depends on every step and their order; resume from the last checkpoint."""
    file, steps = folder / "checkpoint.json", training["steps"]
    step, state = json.loads(file.read_text()) if file.exists() else (0, 1)
    if step:
        print(f"training: resuming from step {step} of {steps}", flush=True)
    while step < steps:
        if step == training["at"]:
            misbehave(training["how"])
        time.sleep(training["seconds"])
        state = (state * 6364136223846793005 + numbers[step % len(numbers)]) % 2**64
        step += 1
        log.log_metrics({"state": state % 1000}, step=step)
        print(f"training: {step}/{steps} steps, {1 / max(training['seconds'], 0.01):.1f} steps/s", flush=True)
        if step % CHECKPOINT_EVERY == 0:
            (folder / ".partial").write_text(json.dumps([step, state]))
            (folder / ".partial").replace(file)
            print(f"Wrote a checkpoint at step {step}", flush=True)
    return {"state": state, "steps": steps}


def misbehave(how):
    if how == "memory":
        held = [bytearray(16 * 2**20) for _ in range(1000)]
        print(len(held))
    if how == "error":
        raise ValueError(f"The loss is not a number at step 7, with {os.environ.get('STORE_TOKEN', 'no token')}.")
    if how == "configuration":
        raise UserError("training.steps is odd.", "Make it even.")
    if how == "exit":
        os._exit(3)


def label(numbers, labeling, folder):
    """Write one file per shard: in a part, its own shards; in the merge, those that are missing."""
    part, parts = handover.work_split()
    for shard in range(labeling["shards"]):
        file = folder / f"{shard}.json"
        if shard % parts != part or file.exists():
            continue
        time.sleep(labeling["seconds"])
        (folder / f".partial-{shard}").write_text(json.dumps({str(n): (n * 2654435761 + shard) % 1000 for n in numbers}))
        (folder / f".partial-{shard}").replace(file)
        print(f"labeling: shard {shard} written by part {part} of {parts}", flush=True)
    if parts > 1:
        return {}
    return {str(shard): json.loads((folder / f"{shard}.json").read_text()) for shard in range(labeling["shards"])}


def write_report(trained, labels):
    return f"<p>{trained['state']} {len(labels)}</p>"


def pair(numbers):
    import torch
    import torch.distributed as distributed

    distributed.init_process_group("gloo")
    total = torch.tensor([distributed.get_rank() + 1.0])
    distributed.all_reduce(total)
    world = distributed.get_world_size()
    distributed.destroy_process_group()
    return {"sum": total.item(), "world": world}


def empty(numbers):
    return {}


def register_pipelines():
    making = Pipeline([node(make, "params:making", "numbers", name="make")])
    training = Pipeline(
        [node(train, ["numbers", "params:training", "training_folder", "metric_log"], "trained", name="train", tags="gpu")]
    )
    labeling = Pipeline([node(label, ["numbers", "params:labeling", "labels_folder"], "labels", name="label", tags="split")])
    reporting = Pipeline([node(write_report, ["trained", "labels"], "report", name="write_report")])
    return {
        "__default__": making + training + labeling + reporting,
        "training": making + training,
        "labeling": making + labeling,
        "reporting": reporting,
        "pair": making + Pipeline([node(pair, "numbers", "summed", name="pair", tags="together")]),
        "many": making + Pipeline([node(empty, "numbers", f"empty_{i}", name=f"empty_{i}", tags="tiny") for i in range(200)]),
        "making": making,  # last, so that it is the stage of its node
    }
