"""All specialists by name. Import `SPECIALISTS` from here."""

from fourfold.specialists.dense import DENSE_SPECIALISTS
from fourfold.specialists.detectors import DETECTORS
from fourfold.specialists.finetuned import FINETUNED
from fourfold.specialists.protocol import SPECIALISTS

for _specialist in (*DENSE_SPECIALISTS, *DETECTORS, *FINETUNED):
    SPECIALISTS.register(_specialist.name, _specialist)

__all__ = ["SPECIALISTS"]
