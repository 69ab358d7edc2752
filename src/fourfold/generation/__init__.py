"""From a trained 4M and some conditions to any other modality: in tokens (decoding), as values (any_to_any, requests)."""

from fourfold.generation.requests import Request, generate, generate_many

__all__ = ["Request", "generate", "generate_many"]
