"""From a trained 4M and some conditions to any other modality, in tokens (decoding) and as values (any_to_any)."""
