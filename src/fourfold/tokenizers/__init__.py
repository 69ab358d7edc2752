"""Tokenizers: a VQ-VAE for each dense label, and one text vocabulary for captions, boxes and other sequences.

Reading order: `tokenizer_set.py` (what the rest of the project uses), `training/tokenizer_set.py`, `networks/vqvae.py`.
"""
