"""The 4M transformer (arXiv 2312.06647): what it eats (batch), its shape (config), its blocks, losses and files."""
