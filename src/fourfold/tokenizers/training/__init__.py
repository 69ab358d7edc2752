"""Training of tokenizers: one VQ-VAE, one diffusion decoder, all tokenizers of a run."""
