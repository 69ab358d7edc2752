"""Generation of any modalities from any others, as tokens (`decoding.py`) and as values (`any_to_any.py`)."""

from fourfold.generation.requests import Request, generate, generate_many

__all__ = ["Request", "generate", "generate_many"]
