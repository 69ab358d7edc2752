"""Tokenizers: a VQ-VAE for each dense label, and one text vocabulary for captions, boxes and other sequences.

Reading order: `tokenizer_set.py` (what the rest of the project uses), `training/tokenizer_set.py`, `networks/vqvae.py`.
"""

REMEDY = (
    "Write it again with `kedro run --pipelines=tokenizer_training` (below `any_to_any`: pretraining), or restore it with "
    "`dvc checkout --force`."
)
