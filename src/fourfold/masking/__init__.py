"""Masking of samples: which tokens the model sees and which it must predict (4M-7, arXiv 2312.06647 §2.2)."""
