"""Networks that turn a dense label into tokens and back: VQ-VAEs, their codebooks, diffusion decoders."""
