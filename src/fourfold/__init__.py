"""The science of fourfold: scenes, labelers, tokenizers, 4M, generation, transfer and evaluation; no platform in it."""

__version__ = "0.1.0"
