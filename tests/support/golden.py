"""The golden vectors that the 4M code computed, as batches of this project; benchmarks read them, too."""

import json
from pathlib import Path

import numpy as np
import torch

from fourfold.model.batch import MaskedBatch
from fourfold.model.fourm import FourM

REFERENCE = Path(__file__).parents[1] / "reference"


def golden_batch(arrays: dict[str, np.ndarray], prefix: str, model: FourM) -> MaskedBatch:
    """Convert the slots that the 4M code selected (index in the concatenation, in the modality) to our batch."""
    sides = {}
    for side, cut in (("enc", 0), ("dec", 1)):
        order = json.loads(str(arrays[f"{prefix}{side}/order"]))
        source, keep = arrays[f"{prefix}{side}/src_index"], arrays[f"{prefix}{side}/src_index"] >= 0
        content, owner = [], []
        for name in order:
            tensor = arrays[f"{prefix}batch/{name}/tensor"]
            flat = np.zeros((len(tensor), 16), np.int64) if name.startswith("rgb") else tensor.reshape(len(tensor), -1)
            if not (name.startswith("rgb") or name.startswith("tok")) and cut:
                flat = flat[:, :-1]  # token t predicts t + 1
            content.append(flat)
            owner += [model.config.index(name)] * flat.shape[1]
        content_BL, owner_L = np.concatenate(content, axis=1), np.array(owner)
        modality = np.where(keep, owner_L[source], -1)
        token = np.where(keep, np.take_along_axis(content_BL, np.maximum(source, 0), 1), 0)
        is_sequence = np.isin(modality, [model.config.index("caption"), model.config.index("det")])
        position = np.where(keep, arrays[f"{prefix}{side}/mod_pos"], 0)
        rank = np.tril(modality[:, :, None] == modality[:, None, :]).sum(-1) - 1
        position = np.where(is_sequence, np.where(rank < 24, rank, 0), position)  # the 4M code uses 0 beyond max_length
        sides[side] = [torch.tensor(a) for a in (modality, position, token, is_sequence)]
    pixels = torch.tensor(arrays[f"{prefix}batch/rgb@224/tensor"]).permute(0, 2, 3, 1)
    target_input, target_id = sides["dec"][2] * sides["dec"][3], torch.tensor(arrays[f"{prefix}dec/target_ids"])
    return MaskedBatch(*sides["enc"][:3], *sides["dec"][:2], target_input, target_id, pixels)
